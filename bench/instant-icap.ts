/**
 * An ICAP server that answers 204 at the last chunk of anything, in a process of its own. It does as little as can be done: no message is parsed, the end of a
 * body is told by its last bytes. Says its URL to its parent, and how many bodies it has answered when it is told `counts`.
 * `node bench/instant-icap.ts [MILLISECONDS]` waits that long before each answer to a body.
 */
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** What it has answered so far. */
export interface IcapCounts {
  readonly bodies: number;
}

const ANSWER = 'ICAP/1.0 204 No Content\r\nISTag: "bench"\r\nEncapsulated: null-body=0\r\n\r\n';
const OPTIONS = 'ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nISTag: "bench"\r\nAllow: 204\r\nEncapsulated: null-body=0\r\n\r\n';

let bodies = 0;

if (process.argv[1] === import.meta.filename) {
  process.send?.(await start(Number(process.argv[2] ?? 0)));
  process.on("message", () => process.send?.({ bodies } satisfies IcapCounts));
  process.once("disconnect", () => process.exit());
}

async function start(delay: number): Promise<string> {
  const server = createServer({ noDelay: true }, (socket) => {
    let start = "";
    let tail = "";
    const answer = (): void => {
      bodies += 1;
      socket.write(ANSWER);
    };
    socket.on("error", () => socket.destroy());
    socket.on("data", (bytes: Buffer) => {
      if (start === "") start = bytes.toString("latin1", 0, 7);
      tail = (tail + bytes.toString("latin1", Math.max(0, bytes.length - 7))).slice(-7);
      const options = start === "OPTIONS";
      if (!tail.endsWith(options ? "\r\n\r\n" : "\r\n0\r\n\r\n")) return;
      if (options) socket.write(OPTIONS);
      else if (delay === 0) answer();
      else void sleep(delay).then(answer);
      start = "";
      tail = "";
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return `icap://127.0.0.1:${(server.address() as AddressInfo).port}/bench`;
}
