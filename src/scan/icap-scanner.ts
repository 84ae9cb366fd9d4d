/** An ICAP service as a scanner: replicas of it, each believed only under an ISTag that its canaries have passed. */
import { IcapError, IcapService, type IcapScanResult, type IcapServiceOptions } from "../../icap/index.ts";
import { GatewayError } from "../errors.ts";
import { type CanaryAnswer, Proof, type ProofLog } from "./canary.ts";
import type { CanaryKind } from "./canary-samples.ts";
import type { Scanner, ScannerHealth, ScanSubject, ScanVerdict, Stamp } from "./scanner.ts";

export interface IcapScannerOptions {
  readonly name: string;
  /** Replicas of one service, tried in this order. */
  readonly services: readonly IcapServiceOptions[];
  readonly canaries: readonly CanaryKind[];
  /** Milliseconds between proofs. */
  readonly canaryInterval: number;
  /** Milliseconds that a proof may take before the service counts as down. */
  readonly canaryTimeout: number;
  readonly log: ProofLog;
  readonly clock?: () => number;
}

interface Replica {
  readonly service: IcapService;
  readonly proof: Proof;
}

/** What is said of the bytes to every service: nothing that an uploader chose. */
const UNNAMED = { contentType: "application/octet-stream", fileName: "media" } as const;

/** A verdict may be followed by the news that its ISTag is new; then the canaries go first, and the media again. */
const MAX_TAG_CHANGES = 2;

export class IcapScanner implements Scanner {
  readonly name: string;
  readonly policy: string;
  readonly needsType = false;
  readonly #replicas: readonly Replica[];
  readonly #clock: () => number;

  constructor(options: IcapScannerOptions) {
    this.name = options.name;
    this.#clock = options.clock ?? Date.now;
    // The host is not part of it (replicas are the same service), its path and arguments are: they choose what is looked for.
    const services = options.services.map(({ url, preview }) => `${pathOf(url)} preview=${preview ?? "never"}`);
    this.policy = `icap RESPMOD ${[...new Set(services)].toSorted().join(" ")}`;
    this.#replicas = options.services.map((serviceOptions) => {
      const service = new IcapService(serviceOptions);
      const proof = new Proof({
        name: options.services.length === 1 ? options.name : `${options.name} (${service.url})`,
        required: options.canaries,
        interval: options.canaryInterval,
        timeout: options.canaryTimeout,
        send: (bytes, signal) => sendCanary(service, bytes, signal),
        log: options.log,
        clock: this.#clock,
      });
      return { service, proof };
    });
  }

  get capacity(): number {
    return this.#replicas.reduce((sum, { service }) => sum + service.capacity, 0);
  }

  health(): ScannerHealth {
    const problems = this.#replicas.flatMap(({ proof }) => [...(proof.problem === undefined ? [] : [proof.problem]), ...proof.warnings]);
    return { ready: this.#replicas.some(({ proof }) => proof.tag !== undefined), problems };
  }

  async start(): Promise<void> {
    await Promise.all(this.#replicas.map(({ proof }) => proof.prove()));
  }

  upholds(stamp: Stamp): boolean {
    return this.#replicas.some(({ proof }) => proof.upholds(stamp));
  }

  async scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    const failures: string[] = [];
    for (const replica of this.#replicas) {
      if (replica.proof.tag === undefined) await replica.proof.renew(signal);
      if (replica.proof.tag === undefined) {
        failures.push(replica.proof.problem ?? this.name);
        continue;
      }
      try {
        const verdict = await this.#ask(replica, subject, signal);
        if (typeof verdict !== "string") return verdict;
        failures.push(verdict);
      } catch (error) {
        if (!(error instanceof IcapError)) throw error;
        if (error.code === "connect_failed") replica.proof.unreachable(error.message);
        else replica.proof.suspect();
        failures.push(error.message);
      }
    }
    throw new GatewayError("scanner_unavailable", { detail: failures.join("; ") });
  }

  /** One replica's verdict, or why there is none. */
  async #ask({ service, proof }: Replica, subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict | string> {
    for (let changes = 0; changes < MAX_TAG_CHANGES; changes += 1) {
      const provenTag = proof.tag;
      const result = await service.scan({ ...UNNAMED, body: () => subject.open(), size: subject.size, signal });
      const tag = result.isTag ?? "";
      if (result.verdict.outcome === "error") {
        proof.suspect();
        return `${this.name}: ${result.verdict.why}`;
      }
      // The proof must hold now as it held when the question was asked.
      if (tag === provenTag && tag === proof.tag) return this.#verdict(result, { tag, at: this.#clock() });
      proof.tagChanged(tag);
      await proof.renew(signal);
      if (proof.tag === undefined) return proof.problem ?? this.name;
    }
    return `${this.name}: its ISTag changes with every answer, so no verdict can be relied on`;
  }

  #verdict({ verdict }: IcapScanResult, stamp: Stamp): ScanVerdict | string {
    switch (verdict.outcome) {
      case "clean":
        return { outcome: "clean", stamp };
      case "infected":
        return { outcome: "infected", threat: verdict.threat, stamp };
      case "unscannable":
        return { outcome: "unscannable", why: verdict.why, stamp };
      case "modified":
      case "error":
        return `${this.name}: ${verdict.why}`;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { proof } of this.#replicas) proof[Symbol.dispose]();
    await Promise.all(this.#replicas.map(({ service }) => service[Symbol.asyncDispose]()));
  }
}

async function sendCanary(service: IcapService, bytes: Buffer, signal: AbortSignal): Promise<CanaryAnswer> {
  // Asked anew, so that a service which was replaced in the meantime is known by its new ISTag and limits.
  await service.options(signal);
  const { verdict, isTag } = await service.scan({ ...UNNAMED, body: () => once(bytes), size: bytes.length, priority: true, signal });
  if (verdict.outcome === "error") return { unanswered: verdict.why };
  return { outcome: verdict.outcome, tag: isTag ?? "" };
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

function pathOf(url: string): string {
  const { pathname, search } = new URL(url);
  return pathname + search;
}
