/** One replica of an ICAP service: believed only under an ISTag that its canaries have passed, and up to the size that it is proven to scan. */
import { setTimeout as sleep } from "node:timers/promises";
import { IcapError, type IcapScanResult, IcapService, type IcapServiceOptions, printable } from "../../icap/index.ts";
import { GatewayError } from "../errors.ts";
import type { SharedProofs } from "../verdicts/shared-proofs.ts";
import type { CanaryKind } from "./canary-samples.ts";
import { type ContextRules, contextFields, needsInclude } from "./icap-context.ts";
import { BlockPage } from "./block-page.ts";
import { type Description, describe } from "./description.ts";
import { askAboutCanary, once } from "./icap-canary.ts";
import type { LargeCanary } from "./large-canary.ts";
import type { Doubt } from "./doubts.ts";
import { type CanaryAnswer, Proof, type ProofLog, type ProofState, type Standing } from "./proof.ts";
import { SizeProof, type SizeProofLog } from "./proven-size.ts";
import type { Patience } from "./replica-patience.ts";
import { ReturnedBody } from "./returned-body.ts";
import { ScansUnderWay } from "./scans-under-way.ts";
import type { KeptOutcome, Replacement, ScanContext, ScanSubject, ScanVerdict, Stamp } from "./scanner.ts";
import { ASSUMED_SIZE } from "./size-search.ts";
import { Suspension, type SuspensionRules } from "./suspension.ts";

export interface ReplicaOptions {
  /** As logs and readiness name it. */
  readonly name: string;
  readonly service: IcapServiceOptions;
  readonly canaries: readonly CanaryKind[];
  /** Milliseconds between proofs, and for one. */
  readonly canaryInterval: number;
  readonly canaryTimeout: number;
  /** As of `Proof`. */
  readonly canarySilence?: number;
  readonly suspend: SuspensionRules;
  /** The profile's own by default. */
  readonly describeType: boolean | undefined;
  readonly context: ContextRules;
  /** Of what is to be scanned, bytes; undefined where sizes are not to be proven. */
  readonly proveSize:
    | { readonly upTo: number; readonly shared: { readonly proofs: SharedProofs; readonly key: string } | undefined }
    | undefined;
  /** It passed its canaries, which went out `at` this moment. */
  readonly passed?: (at: number) => void;
  /** It was found out that it may not have worked, or not have looked at all of what it was sent. */
  readonly doubted?: (doubt: Doubt) => void;
  /** Its ISTag is another one than before. */
  readonly changed?: () => void;
  readonly log: ReplicaLog;
  readonly clock: () => number;
}

export type ReplicaLog = ProofLog & SizeProofLog;

/**
 * What asking a replica came to.
 * - `unproven`: its standing ended meanwhile, so that nothing it says counts; it may be asked again once it stands.
 * - `failed`: it could not scan this.
 * - `unclear`: its answer could not be read; it may have been a block.
 * - `busy`: too many wait for it already.
 * - `beyond`: larger than what it is proven to scan, `limit` bytes.
 */
export type ReplicaAnswer =
  | { readonly kind: "verdict"; readonly verdict: ScanVerdict }
  | { readonly kind: "unproven" | "failed" | "unclear" | "busy"; readonly why: string }
  | Beyond;

interface Beyond {
  readonly kind: "beyond";
  readonly limit: number;
}

/** Milliseconds between two looks whether there is room for canaries. */
const ROOM_INTERVAL = 100;
/** Milliseconds for one canary of a large size, and from one proof of the size to the next. */
const SIZE_TIMEOUT = 300_000;
const SIZE_INTERVAL = 6 * 3_600_000;

export class Replica implements AsyncDisposable {
  readonly describesType: boolean;
  readonly #options: ReplicaOptions;
  readonly #service: IcapService;
  /** REQMOD: nothing comes back in a file's stead, but a page that says why it is blocked. */
  readonly #sendsRequests: boolean;
  readonly #proof: Proof;
  readonly #size: SizeProof | undefined;
  readonly #suspension: Suspension;
  readonly #underWay = new ScansUnderWay();
  /** When it last gave a verdict on media, by the clock. */
  #lastVerdict = Number.NEGATIVE_INFINITY;

  constructor(options: ReplicaOptions) {
    const { name, canaries, proveSize, log, clock, doubted, changed } = options;
    this.#options = options;
    this.#service = new IcapService({ ...options.service, onUnsolicited: () => this.#proof.mixedUp() });
    this.#sendsRequests = (options.service.method ?? this.#service.profile.method) === "REQMOD";
    this.#suspension = new Suspension(options.suspend);
    this.describesType = options.describeType ?? this.#service.profile.wantsName;
    if (proveSize !== undefined) {
      const { upTo: maxSize, shared } = proveSize;
      const known = { name, maxSize, timeout: SIZE_TIMEOUT, interval: SIZE_INTERVAL, log, clock };
      this.#size = new SizeProof({
        ...known,
        ...(shared === undefined ? {} : { shared }),
        ...(doubted === undefined ? {} : { doubted }),
        send: (canary, signal) => this.#sendLarge(canary, signal),
      });
    }
    this.#proof = new Proof({
      name,
      required: canaries,
      interval: options.canaryInterval,
      timeout: options.canaryTimeout,
      ...(options.canarySilence === undefined ? {} : { silence: options.canarySilence }),
      send: async ({ bytes, type }, signal) => {
        // Asked anew, so that a service which was replaced in the meantime is known by its new ISTag and limits.
        await this.#service.options(signal, { fresh: true });
        const described = this.describesType ? type : undefined;
        return askAboutCanary(this.#service, { body: () => once(bytes), size: bytes.length, type: described, priority: true, signal });
      },
      passed: (_tag, at) => {
        if (this.#proof.standing !== undefined) this.#size?.stands(this.#proof.standing);
        options.passed?.(at);
      },
      ...(doubted === undefined ? {} : { doubted }),
      ...(changed === undefined ? {} : { changed }),
      room: (signal) => this.#room(signal),
      log,
      clock,
    });
  }

  /** A service that takes one connection has none that could be kept for canaries. */
  async #room(signal: AbortSignal): Promise<void> {
    const taken = (): boolean => this.#service.stats().busy >= this.#service.stats().limit;
    if (taken()) this.#size?.giveWay();
    while (taken() && !signal.aborted) await sleep(ROOM_INTERVAL, undefined, { signal, ref: false }).catch(() => undefined);
  }

  get url(): string {
    return this.#service.url;
  }

  get standing(): Standing | undefined {
    return this.#proof.standing;
  }

  get state(): ProofState {
    return this.#proof.state;
  }

  /** Bytes; undefined while that is not known, or not asked. */
  get provenSize(): number | undefined {
    const tag = this.#proof.standing?.tag;
    return tag === undefined ? undefined : this.#size?.size(tag);
  }

  /** Why it is not used, and what is wrong although it is. */
  get problems(): readonly string[] {
    const { problem, warnings } = this.#proof;
    return [...(problem === undefined ? [] : [problem]), ...warnings, ...(this.#size?.warnings ?? [])];
  }

  /** Why it is not used. */
  get problem(): string {
    return this.#proof.problem ?? `${this.#options.name} failed`;
  }

  get capacity(): number {
    return this.#service.capacity;
  }

  /** How busy it is, for its size; those that keep scans waiting come after all others. */
  get load(): number {
    const { busy, waiting } = this.#service.stats();
    return (this.#proof.stuck ? STUCK : 0) + (busy + waiting) / this.capacity;
  }

  /** Whether a scan would be sent to it at once. */
  get hasRoom(): boolean {
    const { busy, waiting } = this.#service.stats();
    return waiting === 0 && busy < this.capacity && !this.#proof.stuck;
  }

  prove(): Promise<void> {
    return this.#proof.prove();
  }

  /** Others have news of it. */
  recheck(): void {
    this.#proof.recheck();
  }

  /** Resolves once its standing is as good as it can be had now. @throws the signal's reason. */
  renew(signal: AbortSignal, options: { readonly needed: boolean }): Promise<void> {
    return this.#proof.renew(signal, options);
  }

  upholds(stamp: Stamp, outcome: KeptOutcome): boolean {
    return this.#proof.upholds(stamp, outcome);
  }

  doubts(stamp: Stamp, outcome: KeptOutcome): boolean {
    return this.#proof.doubts(stamp, outcome) || (this.#size?.doubts(stamp, outcome) ?? false);
  }

  /** It scanned something. */
  succeeded(): void {
    this.#suspension.succeeded(this.#options.clock());
  }

  /** Another replica scanned what this one could not, so it was not the bytes' fault. */
  outdone(why: string): void {
    const pause = this.#suspension.failed(this.#options.clock());
    if (pause === undefined) return;
    const { failures, within } = this.#options.suspend;
    this.#proof.suspend(
      pause,
      `${failures} scans failed within ${within / 1000} s, so it is left alone for ${pause / 1000} s; the last: ${why}`,
    );
  }

  /** A scan waits for its answer; it is asked soon whether it is there at all. */
  keepsWaiting(): void {
    this.#proof.suspect();
  }

  /** A scan has waited for its answer since then (by the clock), and another replica's came first, although it was asked later. */
  outrun(since: number): void {
    this.#proof.keptWaiting();
    // One that answers others meanwhile is slow, or busy, but works.
    if (this.#lastVerdict < since) this.outdone("it did not answer in time");
  }

  /**
   * Has it scan the subject. `patience` passes while it keeps the scan waiting.
   * @throws whatever the subject throws; the signal's reason; GatewayError `shutting_down`.
   */
  async ask(subject: ScanSubject, patience: Patience | undefined, signal: AbortSignal): Promise<ReplicaAnswer> {
    const { standing } = this.#proof;
    if (standing === undefined) return { kind: "unproven", why: this.problem };
    const scan = this.#underWay.begin(standing, signal);
    const page = this.#sendsRequests ? new BlockPage() : undefined;
    const returned = subject.replacement === undefined || page !== undefined ? undefined : new ReturnedBody(subject.replacement);
    const back = page ?? returned;
    try {
      const before = await this.#beyond(subject.size, standing, scan.signal);
      if (before !== undefined) return before;
      // Otherwise a canary of the size of all that is scanned would keep this one waiting.
      if (this.#size !== undefined && this.#service.stats().busy >= this.capacity) this.#size.giveWay();
      const result = await this.#service.scan({
        ...describe(this.describesType ? subject.type : undefined),
        body: () => patience?.watch(subject.open()) ?? subject.open(),
        size: subject.size,
        fields: subject.context === undefined ? [] : await this.#fields(subject.context, scan.signal),
        ...(back === undefined ? {} : { returned: (bytes) => back.write(bytes) }),
        signal: scan.signal,
      });
      // In the meantime a proof of its size may have come to another end. What was found was within it.
      const after = result.verdict.outcome === "infected" ? undefined : await this.#beyond(subject.size, standing, scan.signal);
      return after ?? (await this.#judge(this.#withReason(result, page), standing, returned));
    } catch (error) {
      signal.throwIfAborted();
      if (standing.lost.aborted) return { kind: "unproven", why: this.problem };
      return this.#failed(error);
    } finally {
      scan[Symbol.dispose]();
      if (returned !== undefined) await returned[Symbol.asyncDispose]();
    }
  }

  /** Where nothing but a page says why the file is blocked, its text is the reason. */
  #withReason(result: IcapScanResult, page: BlockPage | undefined): IcapScanResult {
    const { verdict } = result;
    if (result.page === undefined || verdict.outcome !== "infected") return result;
    const text = page?.text(result.page.contentType);
    return text === undefined ? result : { ...result, verdict: { outcome: "infected", threat: printable(this.#service.scrub(text)) } };
  }

  /**
   * Invariant: a verdict counts only if the very standing that held when the question was asked holds now, and it was given under its tag. Infected counts in
   * any case: kept, it is upheld only once that tag stands.
   */
  #judge(result: IcapScanResult, standing: Standing, returned?: ReturnedBody): ReplicaAnswer | Promise<ReplicaAnswer> {
    const { verdict, isTag, replacement } = result;
    this.#proof.answered();
    if (verdict.outcome === "error") {
      this.#proof.suspect();
      return { kind: "failed", why: `${this.#options.name}: ${verdict.why}` };
    }
    const tag = isTag ?? "";
    if (tag !== standing.tag) this.#proof.tagChanged(tag);
    if (verdict.outcome === "infected")
      return { kind: "verdict", verdict: withStamp(verdict, { tag, at: this.#options.clock() }, undefined) };
    if (replacement === undefined || returned === undefined) return this.#counted(verdict, tag, standing, undefined);
    return this.#withReplacement(verdict, tag, standing, returned);
  }

  async #withReplacement(verdict: Told, tag: string, standing: Standing, returned: ReturnedBody): Promise<ReplicaAnswer> {
    const place = await returned.take();
    const answer = this.#counted(verdict, tag, standing, place);
    if (answer.kind !== "verdict") await place?.[Symbol.asyncDispose]();
    return answer;
  }

  #counted(verdict: Told, tag: string, standing: Standing, place: Replacement | undefined): ReplicaAnswer {
    if (tag !== standing.tag || standing !== this.#proof.standing) {
      return { kind: "unproven", why: this.#proof.problem ?? `${this.#options.name}: its ISTag changes with every answer` };
    }
    this.#lastVerdict = this.#options.clock();
    // The same tag, but not as a part of each answer's head, which every verdict that is kept would keep with it.
    return { kind: "verdict", verdict: withStamp(verdict, { tag: standing.tag, at: this.#lastVerdict }, place) };
  }

  #failed(error: unknown): ReplicaAnswer {
    if (!(error instanceof IcapError)) throw error;
    const why = error.message;
    switch (error.code) {
      case "closed":
        throw new GatewayError("shutting_down", { cause: error });
      case "body_size":
        // Media that is not as long as it was said to be can't be had.
        throw new GatewayError("homeserver_failed", { detail: why, cause: error });
      case "busy":
        return { kind: "busy", why };
      case "connect_failed":
        this.#proof.unreachable(why);
        return { kind: "failed", why };
      case "timeout":
      case "closed_early":
      case "protocol":
      case "limit":
      case "wrong_service":
      case "unavailable":
        this.#proof.suspect();
        return { kind: error.answered ? "unclear" : "failed", why };
    }
  }

  #beyond(size: number, { tag }: Standing, signal: AbortSignal): Beyond | undefined | Promise<Beyond | undefined> {
    // What every scanner takes need not wait until a limit is known.
    if (this.#size === undefined || size <= ASSUMED_SIZE) return beyond(size, this.#size?.size(tag));
    return this.#size.limit(tag, signal, size).then((limit) => beyond(size, limit));
  }

  async #fields(context: ScanContext, signal: AbortSignal): Promise<ReturnType<typeof contextFields>> {
    const rules = this.#options.context;
    const include = needsInclude(rules) ? (await this.#service.options(signal)).include : [];
    return contextFields(context, rules, include);
  }

  /** A canary of a large size, which an ordinary scan may wait for. */
  async #sendLarge(canary: LargeCanary, signal: AbortSignal): Promise<CanaryAnswer> {
    const type = this.describesType ? ZIP : undefined;
    const answer = await askAboutCanary(this.#service, { body: () => canary.open(), size: canary.size, type, priority: false, signal });
    // Its own limit, or an engine that is gone: its canaries tell.
    if (answer.outcome === "failed") this.#proof.suspect();
    return answer;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#proof[Symbol.dispose]();
    this.#size?.[Symbol.dispose]();
    await this.#service[Symbol.asyncDispose]();
  }
}

/** More than any line is long. */
const STUCK = 1e9;

const ZIP: Description = { mime: "application/zip", extension: "zip" };

function beyond(size: number, limit: number | undefined): Beyond | undefined {
  return limit === undefined || size <= limit ? undefined : { kind: "beyond", limit };
}

type Told = Exclude<IcapScanResult["verdict"], { outcome: "error" }>;

function withStamp(verdict: Told, stamp: Stamp, replacement: Replacement | undefined): ScanVerdict {
  switch (verdict.outcome) {
    case "clean":
      return { outcome: "clean", stamp };
    case "infected":
      return { outcome: "infected", threat: verdict.threat, stamp };
    case "unscannable":
      return { outcome: "unscannable", why: verdict.why, stamp };
    case "modified":
      return { outcome: "modified", why: verdict.why, stamp, ...(replacement === undefined ? {} : { replacement }) };
  }
}
