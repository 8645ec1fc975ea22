import { publicActionsSharedSequencer, superchainETHBridgeAbi, superchainETHBridgeAddress } from '@op-shared-sequencer/sdk'
import { createClient, createPublicClient, encodeFunctionData, http, parseEther } from 'viem'
import { mnemonicToAccount } from 'viem/accounts'

// As `make devnet` prints them; op-node's default port for sharedseq is 8570.
const client = createClient({ transport: http('http://127.0.0.1:7546') }).extend(publicActionsSharedSequencer())
const rollupA = createPublicClient({ transport: http('http://127.0.0.1:9545') }) // chain 901
const rollupB = createPublicClient({ transport: http('http://127.0.0.1:9546') }) // chain 902
const account = mnemonicToAccount('test test test test test test test test test test test junk')

const { bundle, hashes, simulation } = await client.signBundle({
  chains: [rollupA, rollupB],
  maxSlots: 10,
  items: [
    {
      chainId: 901,
      account,
      to: superchainETHBridgeAddress,
      value: parseEther('1'),
      data: encodeFunctionData({ abi: superchainETHBridgeAbi, functionName: 'sendETH', args: [account.address, 902n] }),
    },
    { chainId: 902, relay: true },
    { chainId: 902, account, to: '0x000000000000000000000000000000000000dEaD', value: parseEther('1') },
  ],
})
console.log('gas:', simulation?.items.map((item) => item.gasUsed))

const { bundleHash } = await client.sendBundle(bundle)
const { slot } = await client.waitForBundle({ bundleHash, throwOnFailure: true })
console.log(`${hashes[0]} on 901 and ${hashes[2]} on 902 are in slot ${slot}`)
await client.waitForBundle({ bundleHash, until: 'safe', throwOnFailure: true })
