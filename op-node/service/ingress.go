package service

import (
	"context"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/log"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"
)

// accessListChecker judges the messages that a transaction declares.
type accessListChecker interface {
	CheckAccessList(entries []common.Hash, level safety.Level, in messages.ExecutingDescriptor) error
}

// messageJudge is the executor as callers of the RPC see it.
type messageJudge interface {
	accessListChecker
	failsafe
}

// ingressAPIs are the methods that op-geth's transaction pool asks before it takes an
// interop transaction in (op-geth: --rollup.interoprpc). op-geth calls
// supervisor_checkAccessList, upstream's op-interop-filter serves
// interop_checkAccessList; the arguments are the same.
func ingressAPIs(c messageJudge) []gethrpc.API {
	check := &ingress{c}
	return []gethrpc.API{
		{Namespace: "supervisor", Service: check},
		{Namespace: "interop", Service: check},
		{Namespace: "admin", Service: &publicAdmin{c}},
	}
}

type ingress struct{ checker accessListChecker }

// CheckAccessList answers null if every message could be executed, else the error code
// of the interop specification with the reason.
func (i *ingress) CheckAccessList(_ context.Context, entries []common.Hash, level safety.Level, in messages.ExecutingDescriptor) error {
	if err := i.checker.CheckAccessList(entries, level, in); err != nil {
		return &gethrpc.JsonError{Code: interop.GetErrorCode(err), Message: err.Error()}
	}
	return nil
}

// failsafe stops and resumes what executes messages.
type failsafe interface {
	Failsafe() bool
	SetFailsafe(on bool)
}

// publicAdmin reads the failsafe, as upstream's op-interop-filter lets anybody.
type publicAdmin struct{ failsafe failsafe }

// GetFailsafeEnabled is asked by op-geth every second; while it answers true, interop
// transactions are dropped from the pool.
func (a *publicAdmin) GetFailsafeEnabled(context.Context) (bool, error) {
	return a.failsafe.Failsafe(), nil
}

// admin also sets it. It is served where callers have to prove who they are.
type admin struct {
	publicAdmin
	log log.Logger
}

// SetFailsafeEnabled lasts until the process ends. It is this operator's own: blocks that
// others lead may execute messages until they set theirs.
func (a *admin) SetFailsafeEnabled(_ context.Context, enabled bool) error {
	a.failsafe.SetFailsafe(enabled)
	a.log.Warn("Failsafe was set", "enabled", enabled)
	return nil
}
