import type { IcapScanRequest, IcapScanResult, IcapService } from "../../../icap/index.ts";

/** Has `content` scanned, in pieces of at most `piece` bytes. */
export function scan(
  service: IcapService,
  content: string | Uint8Array,
  { piece = Infinity, ...rest }: Partial<IcapScanRequest> & { piece?: number } = {},
): Promise<IcapScanResult> {
  const bytes = Buffer.from(content);
  return service.scan({
    async *body() {
      for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece);
    },
    size: bytes.length,
    contentType: "application/octet-stream",
    fileName: "file.bin",
    signal: new AbortController().signal,
    ...rest,
  });
}

/** The code of what a promise rejects with. */
export async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    return { resolved: await promise };
  } catch (error) {
    return error instanceof Error && "code" in error ? error.code : error;
  }
}

/** Waits for a condition that another party brings about. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    await new Promise((resolve) => {
      setTimeout(resolve, 2);
    });
  }
}
