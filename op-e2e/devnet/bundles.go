package devnet

import (
	"context"
	"math/big"
	"sync"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/params"
)

// BundleLoad sends bundles over the first two chains: ETH goes to a new account on the other
// one, which spends some of it there, in turns from one and from the other. The last
// transaction of every fourth one reverts, so that nothing of that bundle is executed.
type BundleLoad struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// bundleUser is the development account the bundles are sent from.
const bundleUser = 5

// StartBundles sends perMinute bundles a minute until Stop, each when the one before has come
// to its end.
func (d *Devnet) StartBundles(perMinute int) (*BundleLoad, error) {
	user, err := User(bundleUser)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &BundleLoad{cancel: cancel}
	l.done.Go(func() {
		tick := time.NewTicker(time.Minute / time.Duration(perMinute))
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := d.sendOver(ctx, user, i); err != nil && ctx.Err() == nil {
				d.log.Debug("Bundle not sent", "err", err)
			}
		}
	})
	return l, nil
}

// Stop ends it and returns when nothing is sent any more.
func (l *BundleLoad) Stop() {
	l.cancel()
	l.done.Wait()
}

func (d *Devnet) sendOver(ctx context.Context, user Account, i int) error {
	from, to := d.chains[i%2], d.chains[1-i%2]
	fresh, err := FreshAccount()
	if err != nil {
		return err
	}
	amount := big.NewInt(params.Ether / 1000)
	half := new(big.Int).Div(amount, big.NewInt(2))
	b := d.NewBundle().
		Tx(user, SendETH(from, 0, fresh.Address, to, amount)).
		Relay(to).
		Tx(fresh, Transfer(to, 0, user.Address, half))
	if i%4 == 3 {
		b.Tx(user, SendETH(to, 0, common.Address{}, from, amount)) // to nobody: it reverts
	}
	_, err = b.Run(ctx)
	return err
}
