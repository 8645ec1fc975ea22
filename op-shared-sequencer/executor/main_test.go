package executor_test

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// raceDetector says whether this test binary has it.
var raceDetector bool
