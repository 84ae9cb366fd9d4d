/** An ICAP service as a scanner: replicas of it, the least busy of those that prove themselves, and another one where that fails. */
import type { IcapServiceOptions } from "../../icap/index.ts";
import type { CanaryKind } from "./canary-samples.ts";
import { type ContextRules, checkContext, identitiesOf } from "./icap-context.ts";
import { Replica, type ReplicaLog } from "./icap-replica.ts";
import type { ProofState } from "./proof.ts";
import type { SharedProofs } from "./proven-size.ts";
import { ReplicatedScan } from "./replicated-scan.ts";
import type { Identity, KeptOutcome, Scanner, ScannerHealth, ScanSubject, ScanVerdict, Stamp } from "./scanner.ts";
import type { SuspensionRules } from "./suspension.ts";

export interface IcapScannerOptions {
  readonly name: string;
  /** Replicas of one service; of those that are as busy, the first is asked. */
  readonly services: readonly IcapServiceOptions[];
  /** False: advisory. True by default. */
  readonly required?: boolean;
  readonly canaries: readonly CanaryKind[];
  /** Milliseconds between proofs. */
  readonly canaryInterval: number;
  /** Milliseconds that a proof may take before the service counts as down. */
  readonly canaryTimeout: number;
  /** What it is told of who asks; nothing by default. */
  readonly context?: ContextRules;
  /** Whether it is told a name and a type that follow from the bytes; the profile's own by default. */
  readonly describeType?: boolean;
  /** Of what is to be scanned, bytes. */
  readonly maxFileSize: number;
  /** Whether media beyond the size that it is proven to scan is refused. Without canaries nothing can be proven. */
  readonly proveSize: boolean;
  /** Where instances tell each other how much a service scans. */
  readonly sharedProofs?: SharedProofs;
  readonly suspend: SuspensionRules;
  /** Milliseconds that a replica may keep media of so many bytes waiting before another one is asked as well. */
  readonly patience?: (size: number) => number;
  readonly log: ReplicaLog;
  readonly clock?: () => number;
}

export interface ReplicaStatus {
  readonly url: string;
  /** `probed` also while its very first canaries are under way. */
  readonly state: Exclude<ProofState, "starting">;
  /** Bytes; undefined while that is not known, or not asked. */
  readonly provenSize: number | undefined;
}

const NOTHING_TOLD: ContextRules = {
  clientIp: "never",
  serverIp: "never",
  user: "never",
  userHeader: "X-Authenticated-User",
  userFormat: "{user}",
  userEncoding: "base64",
};

export class IcapScanner implements Scanner {
  readonly name: string;
  readonly policy: string;
  readonly needsType: boolean;
  readonly required: boolean;
  readonly identities: readonly Identity[];
  readonly #replicas: readonly Replica[];
  readonly #patience: (size: number) => number;
  readonly #clock: () => number;

  /** @throws TypeError for an option that can't be. */
  constructor(options: IcapScannerOptions) {
    const { name, services, canaries, context = NOTHING_TOLD, clock = steadyClock } = options;
    checkContext(context);
    this.name = name;
    this.required = options.required ?? true;
    this.identities = identitiesOf(context);
    this.#patience = options.patience ?? defaultPatience;
    this.#clock = clock;
    this.#replicas = services.map(
      (service) =>
        new Replica({
          ...options,
          name: services.length === 1 ? name : `${name} (${service.url})`,
          service,
          context,
          describeType: options.describeType,
          proveSize:
            options.proveSize && canaries.length > 0 ? { upTo: options.maxFileSize, shared: sharedProofs(options, service) } : undefined,
          clock,
        }),
    );
    this.needsType = this.#replicas.some(({ describesType }) => describesType);
    this.policy = policyOf(options, this.#replicas, context);
  }

  /** Of the replicas that are used, together. */
  get capacity(): number {
    const used = this.#replicas.filter(({ standing }) => standing !== undefined);
    return used.reduce((sum, { capacity }) => sum + capacity, 0) || Math.min(...this.#replicas.map(({ capacity }) => capacity));
  }

  health(): ScannerHealth {
    const problems = this.#replicas.flatMap((replica) => replica.problems);
    return { ready: this.#replicas.some(({ standing }) => standing !== undefined), problems };
  }

  replicas(): readonly ReplicaStatus[] {
    return this.#replicas.map(({ url, state, provenSize }) => ({ url, state: state === "starting" ? "probed" : state, provenSize }));
  }

  async start(): Promise<void> {
    await Promise.all(this.#replicas.map((replica) => replica.prove()));
  }

  /** Replicas share tags and say the same; but what any of them said while it may not have worked is asked again. */
  upholds(stamp: Stamp, outcome: KeptOutcome): boolean {
    const upheld = this.#replicas.some((replica) => replica.upholds(stamp, outcome));
    return upheld && !this.#replicas.some((replica) => replica.doubts(stamp, outcome));
  }

  scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    return new ReplicatedScan({ replicas: this.#replicas, subject, signal, patience: this.#patience, clock: this.#clock }).run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#replicas.map((replica) => replica[Symbol.asyncDispose]()));
  }
}

/** Time that never steps back while the process runs, in milliseconds since the epoch: verdicts are ordered by it. */
function steadyClock(): number {
  return performance.timeOrigin + performance.now();
}

/** 5 s, and one more for each 4 MiB. */
function defaultPatience(size: number): number {
  return 5_000 + (1_000 * size) / (4 * 1024 * 1024);
}

/** The host is no part of it (replicas are the same service); path, arguments and account are: they choose what is looked for. */
function policyOf(options: IcapScannerOptions, replicas: readonly Replica[], context: ContextRules): string {
  const services = options.services.map((service, index) => {
    const { pathname, search } = new URL(replicas[index]?.url ?? service.url);
    const { profile = "auto", method, preview, transferLists = "ignored", blockedBy = [], credentials, fields = [] } = service;
    const names = blockedBy.map((header) => header.toLowerCase()).toSorted();
    const described = replicas[index]?.describesType;
    const parts = [
      pathname + search,
      profile,
      method ?? null,
      preview ?? null,
      transferLists,
      names,
      described,
      credentials?.username ?? null,
      fields,
    ];
    return JSON.stringify(parts);
  });
  return JSON.stringify([
    "icap",
    [...new Set(services)].toSorted(),
    options.canaries.toSorted(),
    options.proveSize,
    Object.entries(context).toSorted(([one], [other]) => (one < other ? -1 : 1)),
  ]);
}

/** Services that only this machine knows by that name may share an ISTag with another machine's, but not its limits. */
function sharedProofs({ name, sharedProofs }: IcapScannerOptions, { url, profile, method, preview }: IcapServiceOptions) {
  if (sharedProofs === undefined || isLocal(url)) return undefined;
  return { proofs: sharedProofs, key: JSON.stringify([name, url, profile, method, preview]) };
}

function isLocal(url: string): boolean {
  const host = new URL(url).hostname.toLowerCase().replace(/\.$/, "");
  return /^(?:127\.|0\.0\.0\.0$|\[::1?\]$|\[::ffff:7f)|\.localhost$/.test(host) || !/[.:]/.test(host);
}
