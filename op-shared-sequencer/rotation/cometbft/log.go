package cometbft

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	cmtlog "github.com/cometbft/cometbft/libs/log"
	"github.com/ethereum/go-ethereum/log"
)

// consensusFailure begins the line that CometBFT logs when its consensus goroutine ends
// with a panic. It says so nowhere else: the node still seems to run.
const consensusFailure = "CONSENSUS FAILURE"

// logger gives CometBFT's log to ours, one level down: its Info is about every step of
// every height, its Error also about what peers do.
type logger struct {
	to     log.Logger
	failed func(reason string) // told of a consensus failure
}

var _ cmtlog.Logger = (*logger)(nil)

func (l *logger) Debug(msg string, keyvals ...any) { l.write(log.LevelTrace, msg, keyvals) }
func (l *logger) Info(msg string, keyvals ...any)  { l.write(log.LevelDebug, msg, keyvals) }
func (l *logger) Warn(msg string, keyvals ...any)  { l.write(log.LevelInfo, msg, keyvals) }

func (l *logger) Error(msg string, keyvals ...any) {
	if strings.HasPrefix(msg, consensusFailure) {
		l.to.Error(msg, keyvals...)
		reason := msg
		for i := 0; i+1 < len(keyvals); i += 2 {
			if keyvals[i] == "err" {
				reason = fmt.Sprint(keyvals[i+1])
			}
		}
		l.failed(reason)
		return
	}
	level := log.LevelWarn
	if strings.HasPrefix(msg, "prevote step: state machine rejected") {
		level = log.LevelDebug // we said why ourselves
	}
	l.write(level, msg, keyvals)
}

func (l *logger) write(level slog.Level, msg string, keyvals []any) {
	if l.to.Enabled(context.Background(), level) {
		l.to.Write(level, msg, keyvals...)
	}
}

func (l *logger) With(keyvals ...any) cmtlog.Logger {
	return &logger{to: l.to.With(keyvals...), failed: l.failed}
}
