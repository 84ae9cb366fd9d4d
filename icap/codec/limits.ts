/** What is read of a peer at most. All are checked before anything is allocated. */
export interface IcapLimits {
  /** Bytes of the ICAP head, of the encapsulated heads together, and of the trailer. */
  readonly headerBytes: number;
  /** Fields in one head. */
  readonly headerCount: number;
  /** Hexadecimal digits of a chunk size, leading zeros included; at most 13, so that sizes stay exact. */
  readonly chunkSizeDigits: number;
  /** Bytes of a chunk's size with its extensions. */
  readonly chunkLineBytes: number;
  /** Bytes of an answer's body. Without it, the client takes what it sent and 1 MiB more. */
  readonly answerBodyBytes?: number;
}

export const DEFAULT_LIMITS: IcapLimits = {
  // X-Violations-Found has four lines for each infected file in an archive.
  headerBytes: 256 * 1024,
  headerCount: 256,
  chunkSizeDigits: 12,
  chunkLineBytes: 1024,
};

/** The defaults with some limits replaced. @throws TypeError for one that is not a positive integer. */
export function limitsFrom(given: Partial<IcapLimits> = {}): IcapLimits {
  for (const [name, value] of Object.entries(given)) {
    if (!Number.isSafeInteger(value) || value < (name === "answerBodyBytes" ? 0 : 1)) {
      throw new TypeError(`limits.${name} must be a positive integer`);
    }
  }
  const limits = { ...DEFAULT_LIMITS, ...given };
  if (limits.chunkSizeDigits > 13) throw new TypeError("limits.chunkSizeDigits must be at most 13");
  return limits;
}
