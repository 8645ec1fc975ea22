package bundlepool

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/txpool"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/params"

	"github.com/op-shared-sequencer/op-shared-sequencer/op-shared-sequencer/sequence"
)

// Entry is a bundle that passed the checks, with what they found out. It is shared
// and not to be changed.
type Entry struct {
	Hash         common.Hash
	Bundle       *sequence.Bundle
	Transactions []*types.Transaction // by item; nil for a relay step. Senders are cached in them
	Senders      []common.Address     // by item; zero for a relay step
	Size         int                  // bytes of the encoding
	Arrival      uint64               // earlier ones are lower
	// Bid is what its senders would pay the sequencer at most, in wei: the sum over its
	// transactions of the priority fee times the gas limit.
	Bid *big.Int

	name Name
}

// Name is what the bundle may be replaced under, false if it has none.
func (e *Entry) Name() (Name, bool) { return e.name, e.name != Name{} }

// Name is a replacement ID and who signed that the bundle has it.
type Name struct {
	Owner common.Address
	ID    common.Hash
}

// Executes says whether the bundle may execute messages: it relays some, or one of its
// transactions declares some.
func (e *Entry) Executes() bool {
	return slices.ContainsFunc(e.Transactions, func(tx *types.Transaction) bool {
		return tx == nil || sequence.Executes(tx)
	})
}

func (e *Entry) distinctSenders() []common.Address {
	var out []common.Address
	for i, s := range e.Senders {
		if e.Transactions[i] != nil && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// on lists the bundle's own transactions on a chain.
func (e *Entry) on(chain sequence.ChainID) []common.Hash {
	var out []common.Hash
	for i, tx := range e.Transactions {
		if tx != nil && e.Bundle.Items[i].Chain == chain {
			out = append(out, tx.Hash())
		}
	}
	return out
}

// What can be wrong with a bundle: the kinds of an InvalidError.
var (
	ErrEmpty        = errors.New("empty")
	ErrTooManyItems = errors.New("too many items")
	ErrTooLarge     = errors.New("too large")
	ErrExpired      = errors.New("expired")
	ErrTooFarAhead  = errors.New("expiry too far ahead")
	ErrUnknownChain = errors.New("unknown chain")
	ErrMalformed    = errors.New("malformed transaction")
	ErrTxType       = errors.New("transaction type not accepted")
	ErrWrongChain   = errors.New("signed for another chain")
	ErrSignature    = errors.New("invalid signature")
	ErrDuplicate    = errors.New("duplicate transaction")
	ErrNonceOrder   = errors.New("nonces not ascending")
	ErrGas          = errors.New("gas limit not acceptable")
	ErrRelay        = errors.New("nothing to relay")
	ErrInvalidTx    = errors.New("invalid transaction")
	ErrTerms        = errors.New("terms not acceptable")
)

// InvalidError says why a bundle is refused and what was expected, in one line. The
// bundle as it is can never be accepted, except when Kind is ErrTooFarAhead.
type InvalidError struct {
	Item   int // index of the item, -1 if the bundle as a whole is meant
	Chain  sequence.ChainID
	Kind   error // one of the Err… above
	Detail string
}

func (e *InvalidError) Error() string {
	if e.Item < 0 {
		return fmt.Sprintf("bundle: %s: %s", e.Kind, e.Detail)
	}
	return fmt.Sprintf("item %d on chain %s: %s: %s", e.Item, e.Chain, e.Kind, e.Detail)
}

func (e *InvalidError) Unwrap() error { return e.Kind }

// rules are what a transaction of a chain is checked against.
type rules struct {
	signer types.Signer
	config *params.ChainConfig
}

// newRules takes the rules up to Isthmus (L1 Prague), which every chain in an interop
// set has behind it. Later forks are the engine's to check.
func newRules(chain sequence.ChainID) *rules {
	id := new(big.Int).SetUint64(uint64(chain))
	zero, start := new(big.Int), uint64(0)
	return &rules{
		signer: types.LatestSignerForChainID(id),
		config: &params.ChainConfig{
			ChainID: id, HomesteadBlock: zero, EIP150Block: zero, EIP155Block: zero, EIP158Block: zero, ByzantiumBlock: zero,
			ConstantinopleBlock: zero, PetersburgBlock: zero, IstanbulBlock: zero, MuirGlacierBlock: zero, BerlinBlock: zero,
			LondonBlock: zero, ArrowGlacierBlock: zero, GrayGlacierBlock: zero, MergeNetsplitBlock: zero,
			TerminalTotalDifficulty: zero, ShanghaiTime: &start, CancunTime: &start, PragueTime: &start,
		},
	}
}

// Check says whether a bundle would be taken in, room aside, without taking it in.
// Error: *InvalidError.
func (p *Pool) Check(b *sequence.Bundle) (*Entry, error) {
	p.mu.Lock()
	err := p.checkExpiry(b)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	fail := func(kind error, format string, args ...any) (*Entry, error) {
		return nil, &InvalidError{Item: -1, Kind: kind, Detail: fmt.Sprintf(format, args...)}
	}
	if len(b.Items) == 0 {
		return fail(ErrEmpty, "it has no items, expected at least one transaction")
	}
	if len(b.Items) > p.cfg.MaxItems {
		return fail(ErrTooManyItems, "it has %d items, expected at most %d", len(b.Items), p.cfg.MaxItems)
	}
	// Before encoding and hashing it, which would cost us more than it cost the sender.
	size := 0
	for i := range b.Items {
		size += len(b.Items[i].Transaction)
	}
	if size > p.cfg.MaxBundleBytes {
		return fail(ErrTooLarge, "its transactions have %d bytes, expected at most %d for the bundle", size, p.cfg.MaxBundleBytes)
	}
	if size = len(b.Encode()); size > p.cfg.MaxBundleBytes {
		return fail(ErrTooLarge, "it has %d bytes, expected at most %d", size, p.cfg.MaxBundleBytes)
	}
	return p.decode(b, size, true)
}

// checkTerms checks what a bundle asks for beside its items.
func checkTerms(b *sequence.Bundle) error {
	fail := func(format string, args ...any) error {
		return &InvalidError{Item: -1, Kind: ErrTerms, Detail: fmt.Sprintf(format, args...)}
	}
	t := b.Terms
	if t == nil {
		return nil
	}
	if t.First == 0 && t.ReplacementID == (common.Hash{}) && len(t.Conditions) == 0 {
		return fail("they ask for nothing, expected no terms then")
	}
	if t.First > b.Expiry {
		return fail("its first slot is %d, expected at most its last, %d", t.First, b.Expiry)
	}
	if (t.ReplacementID == (common.Hash{})) != (len(t.Signature) == 0) {
		return fail("a replacement ID and its signature: expected both or none")
	}
	if err := t.Check(); err != nil {
		return fail("%v", err)
	}
	chains := b.Chains()
	for i := range t.Conditions {
		c := &t.Conditions[i]
		if !slices.Contains(chains, c.Chain) {
			return fail("condition %d is about chain %s, which the bundle does not touch", i, c.Chain)
		}
		if !slices.IsSortedFunc(c.Accounts, func(x, y sequence.KnownAccount) int { return cmp.Or(x.Address.Cmp(y.Address), -1) }) {
			return fail("condition %d: its accounts are not ascending", i)
		}
		for _, a := range c.Accounts {
			if a.StorageRoot != (common.Hash{}) && len(a.Slots) > 0 {
				return fail("condition %d: account %s has a storage root and slots, expected one of them", i, a.Address)
			}
			if !slices.IsSortedFunc(a.Slots, func(x, y sequence.KnownSlot) int { return cmp.Or(x.Key.Cmp(y.Key), -1) }) {
				return fail("condition %d: the slots of account %s are not ascending", i, a.Address)
			}
		}
		if err := c.Conditional().Validate(); err != nil {
			return fail("condition %d: %v", i, err)
		}
	}
	return nil
}

func (p *Pool) checkExpiry(b *sequence.Bundle) error {
	switch {
	case b.Expiry < p.slot:
		return &InvalidError{Item: -1, Kind: ErrExpired, Detail: fmt.Sprintf("its last slot is %d, expected %d or later", b.Expiry, p.slot)}
	case b.Expiry-p.slot > p.cfg.MaxAhead:
		return &InvalidError{Item: -1, Kind: ErrTooFarAhead, Detail: fmt.Sprintf("its last slot is %d, expected at most %d (%d s ahead)",
			b.Expiry, p.slot+p.cfg.MaxAhead, p.cfg.MaxAhead)}
	}
	return nil
}

// decode checks the items, against the configured limits if asked to.
func (p *Pool) decode(b *sequence.Bundle, size int, limits bool) (*Entry, error) {
	type account struct {
		chain sequence.ChainID
		addr  common.Address
	}
	if err := checkTerms(b); err != nil {
		return nil, err
	}
	e := &Entry{
		Hash: b.Hash(), Bundle: b, Size: size, Bid: new(big.Int),
		Transactions: make([]*types.Transaction, len(b.Items)), Senders: make([]common.Address, len(b.Items)),
	}
	if t := b.Terms; t != nil && len(t.Signature) > 0 {
		owner, err := signerOf(b.ReplacementText(), t.Signature)
		if err != nil {
			return nil, &InvalidError{Item: -1, Kind: ErrTerms, Detail: fmt.Sprintf("signature of the replacement ID: %v", err)}
		}
		e.name = Name{owner, t.ReplacementID}
	}
	maxTxGas, gas := uint64(math.MaxUint64), uint64(0)
	if limits {
		maxTxGas = p.cfg.MaxTxGas
	}
	seen := map[common.Hash]int{}
	last := map[account]uint64{}
	for i := range b.Items {
		it := &b.Items[i]
		fail := func(kind error, format string, args ...any) (*Entry, error) {
			return nil, &InvalidError{Item: i, Chain: it.Chain, Kind: kind, Detail: fmt.Sprintf(format, args...)}
		}
		rules := p.chains[it.Chain]
		if rules == nil {
			return fail(ErrUnknownChain, "expected one of %s", chainList(p.cfg.Chains))
		}
		if it.Relay() && it.MayRevert {
			return fail(ErrRelay, "a relay step may not revert")
		}
		if it.Relay() {
			if !slices.ContainsFunc(b.Items[:i], func(o sequence.BundleItem) bool { return o.Chain != it.Chain }) {
				return fail(ErrRelay, "a relay step needs an item on another chain before it")
			}
			continue
		}
		if limits && len(it.Transaction) > p.cfg.MaxTxBytes {
			return fail(ErrTooLarge, "the transaction has %d bytes, expected at most %d", len(it.Transaction), p.cfg.MaxTxBytes)
		}
		// By the first byte, as a blob transaction may come in a form that does not
		// decode, and to say so rather than that it is malformed.
		switch it.Transaction[0] {
		case types.BlobTxType, types.DepositTxType:
			return fail(ErrTxType, "type %d, expected 0 (legacy), 1, 2 or 4", it.Transaction[0])
		}
		tx := new(types.Transaction)
		if err := tx.UnmarshalBinary(it.Transaction); err != nil {
			if errors.Is(err, types.ErrTxTypeNotSupported) {
				return fail(ErrTxType, "type %d, expected 0 (legacy), 1, 2 or 4", it.Transaction[0])
			}
			return fail(ErrMalformed, "expected a signed EIP-2718 transaction: %v", err)
		}
		if !tx.Protected() {
			return fail(ErrWrongChain, "it names no chain, expected an EIP-155 signature for chain %s", it.Chain)
		}
		if id := tx.ChainId(); !id.IsUint64() || id.Uint64() != uint64(it.Chain) {
			return fail(ErrWrongChain, "it is signed for chain %s", id)
		}
		sender, err := types.Sender(rules.signer, tx)
		if err != nil {
			return fail(ErrSignature, "%v", err)
		}
		if err := validate(tx, rules, maxTxGas); err != nil {
			return fail(err.kind, "%v", err.err)
		}
		if gas += min(tx.Gas(), math.MaxUint64-gas); limits && gas > p.cfg.MaxGas {
			return fail(ErrGas, "with it the gas limits of the bundle's transactions come to %d, expected at most %d", gas, p.cfg.MaxGas)
		}
		if first, ok := seen[tx.Hash()]; ok {
			return fail(ErrDuplicate, "%s is also item %d", tx.Hash(), first)
		}
		seen[tx.Hash()] = i
		// Ascending, not consecutive: set-code authorizations and delegated code that
		// creates contracts move an account's nonce too. The engine decides.
		acc := account{it.Chain, sender}
		if n, ok := last[acc]; ok && tx.Nonce() <= n {
			return fail(ErrNonceOrder, "nonce %d after nonce %d of %s, expected a higher one", tx.Nonce(), n, sender)
		}
		last[acc] = tx.Nonce()
		e.Bid.Add(e.Bid, new(big.Int).Mul(tx.GasTipCap(), new(big.Int).SetUint64(tx.Gas())))
		e.Transactions[i], e.Senders[i] = tx, sender
	}
	return e, nil
}

type txFault struct{ kind, err error }

// validate applies the rules of op-geth's transaction pool that need no state.
func validate(tx *types.Transaction, r *rules, maxGas uint64) *txFault {
	head := &types.Header{Number: new(big.Int), Difficulty: new(big.Int), GasLimit: maxGas}
	err := txpool.ValidateTransaction(tx, head, r.signer, &txpool.ValidationOptions{
		Config:  r.config,
		Accept:  1<<types.LegacyTxType | 1<<types.AccessListTxType | 1<<types.DynamicFeeTxType | 1<<types.SetCodeTxType,
		MaxSize: math.MaxUint64, // checked before decoding
		MinTip:  new(big.Int),
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, txpool.ErrGasLimit):
		return &txFault{ErrGas, fmt.Errorf("gas limit %d, expected at most %d", tx.Gas(), maxGas)}
	case errors.Is(err, core.ErrIntrinsicGas), errors.Is(err, core.ErrFloorDataGas), errors.Is(err, core.ErrGasUintOverflow):
		return &txFault{ErrGas, err}
	default:
		return &txFault{ErrInvalidTx, err}
	}
}

func chainList(chains []sequence.ChainID) string {
	s := ""
	for i, c := range chains {
		if i > 0 {
			s += ", "
		}
		s += c.String()
	}
	return s
}
