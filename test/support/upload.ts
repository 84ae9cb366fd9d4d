/** Uploads as clients send them, in HTTP by hand, so that a test says when which byte goes out. */
import { once } from "node:events";
import { type ClientRequest, type IncomingMessage, request as httpRequest } from "node:http";

export interface UploadAnswer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly json: Record<string, unknown>;
}

export interface UploadOptions {
  readonly method?: "POST" | "PUT";
  readonly token?: string | undefined;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent without a length. */
  readonly chunked?: boolean;
}

/** An upload whose body the test writes. */
export interface OpenUpload {
  readonly request: ClientRequest;
  readonly answer: Promise<UploadAnswer>;
}

const EMPTY = { method: "POST", headers: {} } as const;

/** @param size of the body, which is announced; undefined: it goes in chunks. */
export function openUpload(url: string, size: number | undefined, options: UploadOptions = {}): OpenUpload {
  const { method, headers, token } = { ...EMPTY, ...options };
  const request = httpRequest(url, {
    method,
    // A connection of its own: what is left of one upload is nothing to the next.
    agent: false,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(size === undefined ? { "transfer-encoding": "chunked" } : { "content-length": String(size) }),
      ...headers,
    },
  });
  const answer = answered(request);
  // A test that wants none hears of none.
  answer.catch(() => undefined);
  return { request, answer };
}

/** Sends all of it. */
export async function upload(url: string, body: Uint8Array, options: UploadOptions = {}): Promise<UploadAnswer> {
  const { request, answer } = openUpload(url, options.chunked === true ? undefined : body.length, options);
  request.end(body);
  return answer;
}

async function answered(request: ClientRequest): Promise<UploadAnswer> {
  const [response] = (await once(request, "response")) as [IncomingMessage];
  // Nothing more of the body has to go out; what is in the way of that is not what is tested.
  request.on("error", () => undefined);
  const text = Buffer.concat(await Array.fromAsync(response as AsyncIterable<Buffer>)).toString();
  return { status: response.statusCode ?? 0, headers: response.headers, json: JSON.parse(text) as Record<string, unknown> };
}
