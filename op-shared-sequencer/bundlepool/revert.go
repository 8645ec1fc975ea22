package bundlepool

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"

	"github.com/ethereum/go-ethereum/accounts/abi"
	"github.com/ethereum/go-ethereum/crypto"
)

// maxReason bounds a revert reason: a contract chooses it, a log and a terminal show it.
const maxReason = 256

// RevertReason makes what a transaction reverted with readable, in one line: the text
// of Error(string), the meaning of Panic(uint256), the name of a known error of the
// interop predeploys, otherwise the error's selector and data in hex.
func RevertReason(data []byte) string {
	if len(data) == 0 {
		return "no reason given"
	}
	if reason, err := abi.UnpackRevert(data); err == nil {
		if reason == "" {
			return "no reason given"
		}
		return oneLine(reason)
	}
	if len(data) < 4 {
		return "data 0x" + hex.EncodeToString(data)
	}
	name, known := predeployErrors[[4]byte(data)]
	if !known {
		name = "error 0x" + hex.EncodeToString(data[:4])
	}
	if args := data[4:]; len(args) > maxReason/2 {
		name += fmt.Sprintf(" with data 0x%x… (%d bytes)", args[:maxReason/2], len(args))
	} else if len(args) > 0 {
		name += fmt.Sprintf(" with data 0x%x", args)
	}
	return name
}

// oneLine makes text from a contract safe to show.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxReason {
		return string(r[:maxReason]) + "…"
	}
	return s
}

// predeployErrors are the errors of the predeploys that bundles meet: CrossL2Inbox,
// L2ToL2CrossDomainMessenger, SuperchainETHBridge, SuperchainTokenBridge and ETHLiquidity.
// None has arguments.
var predeployErrors = func() map[[4]byte]string {
	out := map[[4]byte]string{}
	for _, name := range []string{
		"CrossL2Inbox_NoExecutingDeposits", "NotInAccessList", "BlockNumberTooHigh", "TimestampTooHigh", "LogIndexTooHigh",
		"IdOriginNotL2ToL2CrossDomainMessenger", "EventPayloadNotSentMessage", "MessageDestinationSameChain",
		"MessageDestinationNotRelayChain", "MessageTargetL2ToL2CrossDomainMessenger", "MessageAlreadyRelayed",
		"InvalidMessage", "NotEntered", "ReentrantCall",
		"InvalidCrossDomainSender", "Unauthorized", "ZeroAddress", "InvalidAmount", "InvalidERC7802",
	} {
		sig := name + "()"
		out[[4]byte(crypto.Keccak256([]byte(sig)))] = sig
	}
	return out
}()
