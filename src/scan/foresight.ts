/** What was found of media that a client brought, remembered for those who will fetch it. */
import type { VerdictKeys } from "../verdicts/keys.ts";
import type { KeptVerdict, SourceRecord, VerdictStore } from "../verdicts/store.ts";
import type { Examined } from "./examination.ts";
import type { Panel } from "./recall.ts";
import type { Commission, MediaRequest } from "./request.ts";
import { sourceKey } from "./source-key.ts";

export interface ForesightOptions {
  readonly verdicts: VerdictStore;
  readonly keys: VerdictKeys;
  /** Who decides when it is fetched. */
  readonly downloads: Panel;
}

export class Foresight {
  readonly #options: ForesightOptions;

  constructor(options: ForesightOptions) {
    this.#options = options;
  }

  /**
   * Whoever asks for this source next needs no scan, as long as these are the bytes that come: each piece is compared when it does. Nothing is remembered where
   * those who decide on downloads were not all asked.
   * @param panel who decided.
   */
  async remember(
    { finding, arrival }: Examined,
    { context, journal }: Commission,
    source: Pick<MediaRequest, "mxc" | "variant" | "attachment">,
    panel: Panel,
  ): Promise<void> {
    const { verdicts, keys, downloads } = this.#options;
    const { policy } = downloads;
    const made = finding.source.verdict;
    if (made === undefined) return;
    const content = keys.content(arrival.sha256, policy.fingerprint, policy.audience(context));
    const verdict =
      content === finding.source.content ? made : await this.#carriedOver(content, finding.source, made, panel, journal.via === "scan");
    if (verdict === undefined) return;
    const key = sourceKey({ ...source, ...(context === undefined ? {} : { context }) }, { keys, policy });
    await verdicts.rememberSource(key, { ...finding.source, content, verdict });
  }

  /** Only a verdict that was just made is written down anew: none of its copies may outlive it. It acquits nothing that a download was found infected. */
  async #carriedOver(
    content: string,
    { digest }: SourceRecord,
    made: KeptVerdict,
    from: Panel,
    fresh: boolean,
  ): Promise<KeptVerdict | undefined> {
    const { verdicts, downloads } = this.#options;
    const record = downloads.policy.carriedOver(made.record, from.policy);
    if (record === undefined) return undefined;
    const stays = (standing: KeptVerdict): boolean => standing.record.outcome === "infected" && downloads.recall.counts(digest, standing);
    return fresh ? verdicts.rememberVerdict(content, record, stays) : verdicts.verdict(content);
  }
}
