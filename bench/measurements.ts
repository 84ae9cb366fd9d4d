/** A load, and what the processes under it take meanwhile. */
import type { Load as RawIcapLoad, LoadResult as RawIcapResult } from "./icap-load.ts";
import { endChild, nextMessage, startChild } from "./child.ts";
import { type Figures, figuresOf } from "./figures.ts";
import type { LoadMessage, LoadResult, LoadSpec } from "./load-spec.ts";
import { Watch } from "./watch.ts";

export interface Measured {
  readonly figures: Figures;
  readonly result: LoadResult;
}

/**
 * @param pids of the processes whose CPU time and memory count
 * @param onMeasuring called when it has warmed up
 * @throws Error when it can't begin
 */
export async function measureLoad(spec: LoadSpec, pids: readonly number[], onMeasuring?: () => Promise<void>): Promise<Measured> {
  using watch = pids.length === 0 ? undefined : await Watch.start(pids);
  const child = startChild("load.ts");
  try {
    let begun: Promise<unknown> = Promise.resolve();
    const ended = Promise.withResolvers<LoadResult>();
    child.on("message", (message: LoadMessage) => {
      if ("measuring" in message) begun = Promise.all([watch?.restart(), onMeasuring?.()]);
      else if ("result" in message) ended.resolve(message.result);
      else ended.reject(new Error(message.failure));
    });
    child.once("exit", (code) => ended.reject(new Error(`the load generator ended with ${code}`)));
    child.send(spec);
    const result = await ended.promise;
    await begun;
    return { result, figures: figuresOf(result, await watch?.end()) };
  } finally {
    await endChild(child);
  }
}

/** Bodies a second that a client who writes prepared bytes has scanned. */
export async function measureRawIcap(load: Omit<RawIcapLoad, "client">): Promise<number> {
  const child = startChild("icap-load.ts", JSON.stringify({ client: "raw", ...load } satisfies RawIcapLoad));
  try {
    const { requests, elapsed } = await nextMessage<RawIcapResult>(child);
    return (requests / elapsed) * 1000;
  } finally {
    await endChild(child);
  }
}
