/** An ICAP service as a scanner: replicas of it, the least busy of those that prove themselves, and another one where that fails. */
import { type IcapServiceOptions, profileOf } from "../../icap/index.ts";
import type { SharedProofs } from "../verdicts/shared-proofs.ts";
import type { CanaryKind } from "./canary-samples.ts";
import { type ContextRules, checkContext, identitiesOf } from "./icap-context.ts";
import { Replica, type ReplicaLog, type ReplicaOptions } from "./icap-replica.ts";
import type { ProofState } from "./proof.ts";
import { ReplicatedScan } from "./replicated-scan.ts";
import { DoubtExchange, type DoubtLog, type SharedDoubts } from "./shared-doubts.ts";
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
  /** Milliseconds without a sign of life after which one that kept scans waiting counts as down; 10000 by default. */
  readonly canarySilence?: number;
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
  /** Names those among them who find the same services at loopback addresses; nobody else does, by default. */
  readonly machine?: string;
  /** Where they tell each other when it may not have worked, and that its ISTag changed; to be there whenever verdicts are shared. */
  readonly sharedDoubts?: SharedDoubts;
  readonly suspend: SuspensionRules;
  /** Milliseconds that a replica may keep media of so many bytes waiting before another one is asked as well. */
  readonly patience?: (size: number) => number;
  readonly log: ReplicaLog & DoubtLog;
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
  readonly #exchange: DoubtExchange | undefined;
  readonly #patience: (size: number) => number;
  readonly #clock: () => number;
  readonly #settled = Promise.withResolvers<void>();

  /** @throws TypeError for an option that can't be. */
  constructor(options: IcapScannerOptions) {
    const { name, services, canaries, context = NOTHING_TOLD, clock = wallClock() } = options;
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
          ...(options.sharedDoubts === undefined ? {} : this.#sharing(service)),
          clock,
        }),
    );
    this.needsType = this.#replicas.some(({ describesType }) => describesType);
    this.policy = policyOf(options, this.#replicas, context);
    this.#exchange =
      options.sharedDoubts &&
      new DoubtExchange({
        shared: options.sharedDoubts,
        key: JSON.stringify([name, this.policy]),
        replicas: services.map(({ url }) => url),
        news: () => {
          for (const replica of this.#replicas) replica.recheck();
        },
        learned: (doubts) => options.log.doubtsLearned(name, doubts),
        clock,
      });
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

  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  async start(): Promise<void> {
    const consulted = this.#exchange?.start();
    const proven = this.#replicas.map(async (replica) => {
      await replica.prove();
      if (replica.standing === undefined) return;
      await consulted;
      // One is enough, however long others are silent.
      this.#settled.resolve();
    });
    await Promise.all([consulted, ...proven]);
    this.#settled.resolve();
  }

  /** Replicas share tags and say the same; but what any of them said while it may not have worked is asked again. */
  upholds(stamp: Stamp, outcome: KeptOutcome): boolean {
    if (this.#exchange?.doubts(stamp, outcome) === true) return false;
    let upheld = false;
    for (const replica of this.#replicas) {
      if (replica.doubts(stamp, outcome)) return false;
      upheld ||= replica.upholds(stamp, outcome);
    }
    return upheld;
  }

  scan(subject: ScanSubject, signal: AbortSignal): Promise<ScanVerdict> {
    return new ReplicatedScan({ replicas: this.#replicas, subject, signal, patience: this.#patience, clock: this.#clock }).run();
  }

  #sharing({ url }: IcapServiceOptions): Pick<ReplicaOptions, "passed" | "doubted" | "changed"> {
    return {
      passed: (at) => this.#exchange?.passed(url, at),
      doubted: (doubt) => this.#exchange?.add(doubt, url),
      changed: () => this.#exchange?.tell(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#exchange?.[Symbol.dispose]();
    await Promise.all(this.#replicas.map((replica) => replica[Symbol.asyncDispose]()));
  }
}

/**
 * Time in milliseconds since the epoch that never steps back, since verdicts are ordered by it, but follows the machine's clock forwards (it was set, or
 * the machine slept): other machines compare it with theirs.
 */
function wallClock(): () => number {
  const { timeOrigin } = performance;
  let ahead = 0;
  return () => {
    const steady = timeOrigin + performance.now();
    ahead = Math.max(ahead, Date.now() - steady);
    return steady + ahead;
  };
}

/** Milliseconds: 5 s, and one more for each 4 MiB begun. In whole seconds, as Node keeps timers in a list for each length. */
function defaultPatience(size: number): number {
  return 5_000 + 1_000 * Math.ceil(size / (4 * 1024 * 1024));
}

/** The host is no part of it (replicas are the same service); path, arguments and account are: they choose what is looked for. */
function policyOf(options: IcapScannerOptions, replicas: readonly Replica[], context: ContextRules): string {
  const services = options.services.map((service, index) => {
    const { pathname, search } = new URL(replicas[index]?.url ?? service.url);
    return JSON.stringify([pathname + search, ...lookOf(service, options.describeType)]);
  });
  return JSON.stringify([
    "icap",
    [...new Set(services)].toSorted(),
    options.canaries.toSorted(),
    options.proveSize,
    Object.entries(context).toSorted(([one], [other]) => (one < other ? -1 : 1)),
  ]);
}

/** What chooses, beside the address, how it looks at what it is sent, and how its answers are read. */
function lookOf(service: IcapServiceOptions, describeType: boolean | undefined): readonly unknown[] {
  const { profile = "auto", method, preview, transferLists = "ignored", blockedBy = [], credentials, fields = [] } = service;
  const names = blockedBy.map((header) => header.toLowerCase()).toSorted();
  const described = describeType ?? profileOf(profile).wantsName;
  return [profile, method ?? null, preview ?? null, transferLists, names, described, credentials?.username ?? null, fields];
}

/** Services that only this machine knows by that name may share an ISTag with another machine's, but not its limits. */
function sharedProofs({ name, sharedProofs, machine, describeType }: IcapScannerOptions, service: IcapServiceOptions) {
  const local = isLocal(service.url);
  if (sharedProofs === undefined || (local && machine === undefined)) return undefined;
  const place = local ? [machine] : [];
  return { proofs: sharedProofs, key: JSON.stringify([name, service.url, ...lookOf(service, describeType), ...place]) };
}

function isLocal(url: string): boolean {
  const host = new URL(url).hostname.toLowerCase().replace(/\.$/, "");
  return /^(?:127\.|0\.0\.0\.0$|\[::1?\]$|\[::ffff:7f)|\.localhost$/.test(host) || !/[.:]/.test(host);
}
