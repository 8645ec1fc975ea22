package service

import (
	"context"

	"github.com/ethereum/go-ethereum/common"
	gethrpc "github.com/ethereum/go-ethereum/rpc"

	"github.com/ethereum-optimism/optimism/op-core/interop"
	"github.com/ethereum-optimism/optimism/op-core/interop/messages"
	"github.com/ethereum-optimism/optimism/op-service/eth/safety"
)

// accessListChecker judges the messages that a transaction declares.
type accessListChecker interface {
	CheckAccessList(entries []common.Hash, level safety.Level, in messages.ExecutingDescriptor) error
}

// ingressAPIs are the methods that op-geth's transaction pool asks before it takes an
// interop transaction in (op-geth: --rollup.interoprpc). op-geth calls
// supervisor_checkAccessList, upstream's op-interop-filter serves
// interop_checkAccessList; the arguments are the same.
func ingressAPIs(c accessListChecker) []gethrpc.API {
	check := &ingress{c}
	return []gethrpc.API{
		{Namespace: "supervisor", Service: check},
		{Namespace: "interop", Service: check},
		{Namespace: "admin", Service: &failsafe{}},
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

// failsafe is the one method of the admin namespace: it reads, and sets nothing.
type failsafe struct{}

// GetFailsafeEnabled is asked by op-geth now and then; if it answered true, interop
// transactions would be dropped from the pool. What a failsafe is for elsewhere, not to
// let messages in while they cannot be judged, CheckAccessList does by refusing them.
func (*failsafe) GetFailsafeEnabled(context.Context) (bool, error) { return false, nil }
