import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, type Server, type Socket, connect, createServer } from "node:net";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { buildCanary } from "../../src/scan/canary-samples.ts";
import type { IcapScanner } from "../../src/scan/icap-scanner.ts";
import { scannerOf, subject } from "../support/antivirus.ts";
import { type CIcap, startCIcap, VIRUS_SCAN } from "../support/peers/c-icap.ts";
import { type Clamd, startClamd } from "../support/peers/clamd.ts";

/** Everything here waits for something to happen, and then for as long as it takes. */
const SOON = { timeout: 120_000, interval: 20 };
const LONG = 400_000;

/** Clients that have something scanned all the time: clean and infected files in turn, small ones and some of a few MB. */
class Load {
  readonly failures: unknown[] = [];
  /** Verdicts that were not the file's own. */
  readonly wrong: string[] = [];
  done = 0;
  readonly #scanner: IcapScanner;
  readonly #stop = new AbortController();
  readonly #clients: Promise<unknown>;

  constructor(scanner: IcapScanner, clients = 4) {
    this.#scanner = scanner;
    this.#clients = Promise.all(Array.from({ length: clients }, (_, client) => this.#run(client)));
  }

  async #run(client: number): Promise<void> {
    for (let turn = client; !this.#stop.signal.aborted; turn += 1) {
      const infected = turn % 2 === 0;
      const bytes = infected ? buildCanary("zip").bytes : randomBytes(turn % 7 === 0 ? 3_000_000 : 20_000);
      try {
        const { outcome } = await this.#scanner.scan(subject(bytes), AbortSignal.timeout(LONG));
        if (outcome !== (infected ? "infected" : "clean")) this.wrong.push(`${infected ? "infected" : "clean"}: ${outcome}`);
        this.done += 1;
      } catch (error) {
        this.failures.push(error);
      }
    }
  }

  /** Resolves when so many more scans have ended. */
  async progress(scans = 30): Promise<void> {
    const enough = this.done + this.failures.length + scans;
    await expect.poll(() => this.done + this.failures.length, SOON).toBeGreaterThanOrEqual(enough);
  }

  /** No request failed, and no verdict was another's. */
  async end(): Promise<void> {
    this.#stop.abort();
    await this.#clients;
    expect({ failures: this.failures, wrong: this.wrong }).toEqual({ failures: [], wrong: [] });
  }
}

/** TCP on the way to a server, which can go silent: connections stay, new ones are made, and nothing comes or goes on them. */
class Relay implements AsyncDisposable {
  readonly #to: { readonly host: string; readonly port: number };
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #silent = false;

  constructor(to: { readonly host: string; readonly port: number }) {
    this.#to = to;
    this.#server = createServer((near) => {
      const far = connect(this.#to.port, this.#to.host);
      this.#join(near, far);
      this.#join(far, near);
    });
  }

  async url(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `icap://127.0.0.1:${(this.#server.address() as AddressInfo).port}/${VIRUS_SCAN}`;
  }

  silence(silent: boolean): void {
    this.#silent = silent;
    for (const socket of this.#sockets) {
      if (silent) socket.pause();
      else socket.resume();
    }
  }

  #join(from: Socket, to: Socket): void {
    this.#sockets.add(from);
    from.on("error", () => to.destroy());
    from.once("close", () => {
      this.#sockets.delete(from);
      to.destroySoon();
    });
    from.on("data", (bytes) => {
      if (to.write(bytes)) return;
      from.pause();
      to.once("drain", () => {
        if (!this.#silent) from.resume();
      });
    });
    if (this.#silent) from.pause();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => {
      this.#server.close(resolve);
    });
  }
}

function stateOf(scanner: IcapScanner, index: number): string | undefined {
  return scanner.replicas()[index]?.state;
}

async function untilUp(scanner: IcapScanner): Promise<void> {
  await expect.poll(() => scanner.replicas().map(({ state }) => state), SOON).toEqual(["up", "up", "up"]);
}

describe("three c-icap in front of one clamd, under load", { timeout: LONG }, () => {
  let clamd: Clamd;
  let peers: CIcap[] = [];
  beforeAll(async () => {
    clamd = await startClamd();
    peers = await Promise.all([1, 2, 3].map(() => startCIcap({ clamd })));
  });
  afterAll(async () => {
    await Promise.all(peers.map((peer) => peer.stop()));
    await clamd?.stop();
  });

  async function start(urls = peers.map((peer) => peer.url())): Promise<IcapScanner> {
    const { scanner } = await scannerOf(urls, {
      services: urls.map((url) => ({ url, maxConnections: 4 })),
      canaryInterval: 30_000,
      canaryTimeout: 30_000,
      canarySilence: 1_500,
      patience: () => 1_000,
    });
    await untilUp(scanner);
    return scanner;
  }

  /** Each of them has scanned something since. */
  async function allTakePart(): Promise<void> {
    const before = await Promise.all(peers.map((peer) => peer.accessLog()));
    for (const [index, peer] of peers.entries()) {
      const answered = async (): Promise<number> => (await peer.accessLog()).filter((line) => line.includes("RESPMOD")).length;
      const already = before[index]?.filter((line) => line.includes("RESPMOD")).length ?? 0;
      await expect.poll(answered, SOON).toBeGreaterThan(already + 5);
    }
  }

  it("one after the other is killed and started again, and two at once", async () => {
    const scanner = await start();
    const load = new Load(scanner);
    for (const [index, peer] of peers.entries()) {
      await load.progress();
      await peer.kill();
      await expect.poll(() => stateOf(scanner, index), SOON).not.toBe("up");
      await load.progress();
      await peer.restart();
      await untilUp(scanner);
    }
    const [first, second] = peers;
    await Promise.all([first?.kill(), second?.kill()]);
    await load.progress();
    expect(stateOf(scanner, 2)).toBe("up");
    await Promise.all([first?.restart(), second?.restart()]);
    await untilUp(scanner);
    await allTakePart();
    await load.end();
  });

  it("one is restarted again and again", async () => {
    const scanner = await start();
    const load = new Load(scanner);
    for (let times = 0; times < 5; times += 1) {
      await load.progress(10);
      await peers[0]?.restart();
    }
    await untilUp(scanner);
    await allTakePart();
    await load.end();
  });

  it("one is stopped, so that it takes what it is sent and never answers, and goes on later", async () => {
    const scanner = await start();
    const load = new Load(scanner);
    await load.progress();
    await peers[0]?.kill("SIGSTOP");
    onTestFinished(async () => peers[0]?.kill("SIGCONT"));
    await expect.poll(() => stateOf(scanner, 0), SOON).not.toBe("up");
    await load.progress();
    await peers[0]?.kill("SIGCONT");
    await untilUp(scanner);
    await allTakePart();
    await load.end();
  });

  it("two are stopped at once", async () => {
    const scanner = await start();
    const load = new Load(scanner);
    await load.progress();
    for (const peer of peers.slice(0, 2)) await peer.kill("SIGSTOP");
    onTestFinished(async () => {
      for (const peer of peers) await peer.kill("SIGCONT");
    });
    await expect.poll(() => [stateOf(scanner, 0), stateOf(scanner, 1)].includes("up"), SOON).toBe(false);
    await load.progress();
    for (const peer of peers.slice(0, 2)) await peer.kill("SIGCONT");
    await untilUp(scanner);
    await load.end();
  });

  it("one is cut off by a network that goes silent, and is used again once it speaks", async () => {
    const [first, ...others] = peers;
    if (first === undefined) throw new Error("no c-icap");
    await using relay = new Relay({ host: first.host, port: first.port });
    const scanner = await start([await relay.url(), ...others.map((peer) => peer.url())]);
    const load = new Load(scanner);
    await load.progress();
    relay.silence(true);
    await expect.poll(() => stateOf(scanner, 0), SOON).not.toBe("up");
    await load.progress();
    relay.silence(false);
    await untilUp(scanner);
    await allTakePart();
    await load.end();
    await scanner[Symbol.asyncDispose]();
  });
});
