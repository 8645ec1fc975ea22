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
//
// Two of its lines say more: CometBFT writes them in its consensus goroutine as it enters a
// step, right before it reads how long the step may take. There is no other place where a
// timeout can be set for a single round.
type logger struct {
	to     log.Logger
	failed func(reason string)                          // told of a consensus failure
	step   func(step string, height int64, round int32) // told of the steps below; may be nil
	height int64
	round  int32
}

// Steps that the log tells of.
const (
	stepPropose   = "entering propose step"
	stepPrevote   = "entering prevote wait step"
	stepPrecommit = "entering precommit wait step"
)

var _ cmtlog.Logger = (*logger)(nil)

func (l *logger) Debug(msg string, keyvals ...any) {
	if l.step != nil && (msg == stepPropose || msg == stepPrevote || msg == stepPrecommit) {
		l.step(msg, l.height, l.round)
	}
	l.write(log.LevelTrace, msg, keyvals)
}

func (l *logger) Info(msg string, keyvals ...any) { l.write(log.LevelDebug, msg, keyvals) }
func (l *logger) Warn(msg string, keyvals ...any) { l.write(log.LevelInfo, msg, keyvals) }

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
	n := *l
	n.to = l.to.With(keyvals...)
	for i := 0; i+1 < len(keyvals); i += 2 {
		switch keyvals[i] {
		case "height":
			n.height, _ = keyvals[i+1].(int64)
		case "round":
			n.round, _ = keyvals[i+1].(int32)
		}
	}
	return &n
}
