// A JSON-RPC server on a free port, over HTTP and WebSocket, that answers as a test says.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type WebSocket, WebSocketServer } from 'ws'

export type RpcError = { code: number; message: string; data?: unknown }
export type Handler = (params: any[], socket?: WebSocket) => unknown

/** Thrown by a handler, it is the answer. */
export class Refused extends Error {
  constructor(readonly error: RpcError) {
    super(error.message)
  }
}

export type Server = {
  http: string
  ws: string
  /** Every request, in the order they came. */
  calls: { method: string; params: any[] }[]
  /** The WebSocket connections that are open. */
  sockets: Set<WebSocket>
  close(): Promise<void>
}

export async function serve(handlers: Record<string, Handler>): Promise<Server> {
  const calls: Server['calls'] = []
  const answer = async (text: string, socket?: WebSocket) => {
    const { id, method, params = [] } = JSON.parse(text)
    calls.push({ method, params })
    const handler = handlers[method]
    try {
      if (!handler) throw new Refused({ code: -32601, message: `the method ${method} does not exist/is not available` })
      return JSON.stringify({ jsonrpc: '2.0', id, result: (await handler(params, socket)) ?? null })
    } catch (error) {
      const refused = error instanceof Refused ? error.error : { code: -32603, message: String(error) }
      return JSON.stringify({ jsonrpc: '2.0', id, error: refused })
    }
  }
  const server = createServer(async (req, res) => {
    let body = ''
    for await (const chunk of req) body += chunk
    res.setHeader('content-type', 'application/json').end(await answer(body))
  })
  const sockets = new Set<WebSocket>()
  const wss = new WebSocketServer({ server })
  wss.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('message', async (data) => {
      const text = await answer(String(data), socket)
      if (socket.readyState === socket.OPEN) socket.send(text)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    http: `http://127.0.0.1:${port}`,
    ws: `ws://127.0.0.1:${port}`,
    calls,
    sockets,
    async close() {
      for (const s of sockets) s.terminate()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Resolves when what is checked holds; the test's own timeout bounds it. */
export async function until<T>(check: () => T | undefined | false | Promise<T | undefined | false>): Promise<T> {
  for (;;) {
    const v = await check()
    if (v) return v
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
