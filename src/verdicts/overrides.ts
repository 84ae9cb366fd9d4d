/** Content that operators block or allow by hand, whatever scanners say. */

export interface Override {
  readonly kind: "block" | "allow";
  readonly reason: string;
  /** When it was made, in ms since the epoch. */
  readonly at: number;
  /** When it ends, in ms since the epoch; undefined is never. */
  readonly expiresAt: number | undefined;
}

/** In this process, so that every request can ask and none waits. Content is named by `VerdictKeys.digest` of its SHA-256. */
export interface OverrideBook {
  /** What holds now. A block wins over an allow, whichever is older. */
  of(digest: string): Override | undefined;
  /** Verdicts made at or before this moment (ms since the epoch) don't count; -Infinity where nothing was forgotten. */
  forgottenAt(digest: string): number;
  /** False only if no content whatever is allowed. */
  readonly allowsAny: boolean;
  health(): { readonly degraded: boolean; readonly problems: readonly string[] };
}

/** Overrides from one place. */
export interface OverrideSource extends OverrideBook, AsyncDisposable {}

/** Overrides can't be read or changed, or a list of content to block can't be used; the message is for an operator, one line. */
export class OverrideError extends Error {
  override readonly name = "OverrideError";
  readonly code = "overrides_unusable";
}

/** All places together: a block in one of them wins over an allow in any other. */
export class Overrides implements OverrideSource {
  readonly #sources: readonly OverrideSource[];

  /** Takes the sources over: they are closed with it. */
  constructor(sources: readonly OverrideSource[]) {
    this.#sources = sources;
  }

  of(digest: string): Override | undefined {
    let allowed: Override | undefined;
    for (const source of this.#sources) {
      const found = source.of(digest);
      if (found?.kind === "block") return found;
      allowed ??= found;
    }
    return allowed;
  }

  forgottenAt(digest: string): number {
    return this.#sources.reduce((latest, source) => Math.max(latest, source.forgottenAt(digest)), -Infinity);
  }

  get allowsAny(): boolean {
    return this.#sources.some((source) => source.allowsAny);
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    const all = this.#sources.map((source) => source.health());
    return { degraded: all.some(({ degraded }) => degraded), problems: all.flatMap(({ problems }) => problems) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#sources.map((source) => source[Symbol.asyncDispose]()));
  }
}
