/** One service, and what it says of each sample. */
import { HOW_TO_WAIT, complaintAbout } from "../scan/canary-advice.ts";
import { type CanaryKind, buildCanary, harmless } from "../scan/canary-samples.ts";
import { largeCanary } from "../scan/large-canary.ts";
import { sizeAdvice } from "../scan/size-advice.ts";
import { type Attempt, searchSize } from "../scan/size-search.ts";
import { type Asked, type Sample, type SampleAnswer, askAbout, sampleOf } from "./canary-question.ts";
import type { CanaryFindings, ProvenSize, Trial } from "./canary-report.ts";
import { Progress } from "./progress.ts";

export interface Plan {
  /** What is sent. */
  readonly kinds: readonly CanaryKind[];
  /** What must be right. */
  readonly required: readonly Trial["sample"][];
  /** Bytes up to which it should scan; 0: no matter. */
  readonly size: number;
}

/** Sends the harmless file, then the canaries, then large ones. `tell` hears of each at once. @throws the signal's reason. */
export async function examine(plan: Plan, asked: Asked, tell: (trial: Trial) => void): Promise<CanaryFindings> {
  const trials: Trial[] = [];
  const run = async (kind: Trial["sample"], sample: Sample): Promise<Trial> => {
    const trial = trialOf(kind, sample, await ask(kind, sample, asked), plan.required.includes(kind));
    trials.push(trial);
    tell(trial);
    return trial;
  };
  await run("harmless", sampleOf(harmless()));
  for (const kind of plan.kinds) {
    if (isGone(trials)) break;
    await run(kind, sampleOf(buildCanary(kind)));
  }
  // A scanner that does not look into a small zip says nothing by what it says of large ones.
  const blind = trials.some(({ sample, required, result }) => required && (sample === "plain" || sample === "zip") && result !== "caught");
  const size = plan.size > 0 && !blind && !isGone(trials) ? await findSize(plan.size, (sample) => run("large", sample)) : undefined;
  return { url: asked.service.url, tags: tagsOf(trials), trials, size, advice: adviceOn(plan, trials, size) };
}

async function ask(kind: Trial["sample"], sample: Sample, asked: Asked): Promise<SampleAnswer> {
  const progress = new Progress(sample.size);
  progress.label(kind);
  try {
    return await askAbout({ ...sample, open: progress.count(() => sample.open()) }, asked);
  } finally {
    progress.clear();
  }
}

function trialOf(sample: Trial["sample"], { size }: Sample, answer: SampleAnswer, required: boolean): Trial {
  const trial = { sample, size, answer, required };
  if (answer.outcome === "unanswered") return { ...trial, result: "unknown", advice: undefined };
  if (answer.outcome === "failed") {
    return { ...trial, result: "unknown", advice: sample === "trailing" && answer.acquits ? HOW_TO_WAIT : undefined };
  }
  if (sample === "large") return { ...trial, result: answer.outcome === "infected" ? "caught" : "missed", advice: undefined };
  const advice = complaintAbout(sample, answer.outcome);
  const [good, bad] = sample === "harmless" ? (["passed", "blocked"] as const) : (["caught", "missed"] as const);
  return { ...trial, result: advice === undefined ? good : bad, advice };
}

/** It takes no connection any more: whatever else is sent, nobody will answer. */
function isGone(trials: readonly Trial[]): boolean {
  const answer = trials.at(-1)?.answer;
  return answer?.outcome === "unanswered" && answer.code === "connect_failed";
}

async function findSize(wanted: number, run: (sample: Sample) => Promise<Trial>): Promise<ProvenSize> {
  const { type } = buildCanary("zip");
  const found = await searchSize(wanted, async (size): Promise<Attempt> => {
    const canary = largeCanary(size);
    const { outcome } = (await run({ size, type, open: () => canary.open() })).answer;
    return outcome === "infected" || outcome === "failed" || outcome === "unanswered" ? outcome : "acquitted";
  });
  const { caught: proven, acquitted, complete } = found;
  return { wanted, proven, complete, fallsShort: proven < wanted && (complete || acquitted !== undefined) };
}

function tagsOf(trials: readonly Trial[]): readonly string[] {
  return [...new Set(trials.flatMap(({ answer }) => ("tag" in answer && answer.tag !== undefined ? [answer.tag] : [])))];
}

function adviceOn({ kinds, required }: Plan, trials: readonly Trial[], size: ProvenSize | undefined): readonly string[] {
  const advice = new Set<string>();
  for (const trial of trials) {
    if (trial.advice !== undefined) advice.add(trial.required ? trial.advice : `${trial.advice} (the configuration does not require it)`);
  }
  if (kinds.length === 0 && required.length === 0) {
    advice.add("the configuration requires no canary of it, so none was sent; --canary KIND sends one all the same");
  }
  if (tagsOf(trials).length > 1)
    advice.add("its ISTag changed in the meantime: some of these answers may be of other signatures than the others");
  if (size !== undefined && size.proven < size.wanted) {
    advice.add(sizeAdvice(size.proven, size.wanted, size.complete ? undefined : "not every canary was answered"));
  }
  return [...advice];
}
