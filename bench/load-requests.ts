/** The requests of the load generator, as bytes, and what the right answer to each is. */
import olm from "@matrix-org/olm";
import type { LoadSpec } from "./load-spec.ts";
import { MediaHashes, SERVER_NAME, UPLOAD_PATH, bodyOf, mediaId, tailOf } from "./media.ts";

export interface PreparedRequest {
  readonly bytes: string;
  /** What follows them. */
  readonly media?: Buffer[];
  /** The last bytes of the media that answers it; undefined where that is a verdict or a URI. */
  readonly tail: Buffer | undefined;
  /** The URI that answers an upload. */
  readonly uri?: string;
}

/** The body of the request with this number, for the media with this ID. */
type BodyOf = (count: number, id: string) => string;

/** Any, but always the same: who knows the media knows it under these. */
const KEY = Buffer.alloc(32, 7);
const IV = Buffer.concat([Buffer.alloc(8, 7), Buffer.alloc(8)]);
/** A form with one file. */
const BOUNDARY = "bench";
const FORM_START = `--${BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\n`;
const FORM_END = `\r\n--${BOUNDARY}--\r\n`;
/** How many bodies are encrypted beforehand at least: clients encrypt each anew. */
const SEALED = 256;

export class Requests {
  readonly #spec: LoadSpec;
  readonly #bodyOf: BodyOf | undefined;
  /** By connection: what paths begin with, and the header fields of all its requests. */
  readonly #connections: readonly { readonly base: string; readonly head: string }[];
  #count = 0;

  private constructor(spec: LoadSpec, bodyOf: BodyOf | undefined) {
    this.#spec = spec;
    this.#bodyOf = bodyOf;
    this.#connections = Array.from({ length: spec.connections }, (_, index) => {
      const target = new URL(spec.targets[index % spec.targets.length] ?? "");
      return { base: target.pathname, head: headOf(target, index) };
    });
  }

  /** @throws Error when request bodies are to be encrypted, and there is no end of them */
  static async prepare(spec: LoadSpec): Promise<Requests> {
    if (!spec.endpoint.endsWith("_encrypted")) return new Requests(spec, undefined);
    const file = fileBodies(spec.size);
    if (spec.publicKey === undefined) return new Requests(spec, (_count, id) => file(id));
    const sealed = await sealedBodies(spec, spec.publicKey, file);
    return new Requests(spec, (count) => sealed[count % sealed.length] ?? "");
  }

  /** The next one, on this connection. */
  next(connection: number): PreparedRequest {
    const { endpoint, media = Infinity, series, size } = this.#spec;
    const { base, head } = this.#connections[connection] ?? { base: "", head: "" };
    const count = this.#count;
    this.#count += 1;
    const id = mediaId(size, series, count % media);
    if (endpoint === "upload") {
      const fields = `Content-Type: application/octet-stream\r\nContent-Length: ${size}\r\n\r\n`;
      return {
        bytes: `POST ${UPLOAD_PATH}${head}${fields}`,
        media: [...bodyOf(size), tailOf(id)],
        tail: undefined,
        uri: `mxc://${SERVER_NAME}/${id}`,
      };
    }
    if (endpoint === "scan_file") {
      const length = FORM_START.length + size + FORM_END.length;
      const fields = `Content-Type: multipart/form-data; boundary=${BOUNDARY}\r\nContent-Length: ${length}\r\n\r\n`;
      return {
        bytes: `POST ${base}/scan_file${head}${fields}${FORM_START}`,
        media: [...bodyOf(size), tailOf(id), Buffer.from(FORM_END)],
        tail: undefined,
      };
    }
    const tail = endpoint.startsWith("scan") ? undefined : tailOf(id);
    if (this.#bodyOf === undefined) {
      const query = endpoint === "thumbnail" ? "?width=320&height=240&method=scale" : "";
      return { bytes: `GET ${base}/${endpoint}/${SERVER_NAME}/${id}${query}${head}\r\n`, tail };
    }
    const body = this.#bodyOf(count, id);
    return {
      bytes: `POST ${base}/${endpoint}${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      tail,
    };
  }
}

/** As a reverse proxy passes a client's request on: each connection is another user at another address. */
function headOf(target: URL, index: number): string {
  const address = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
  return ` HTTP/1.1\r\nHost: ${target.host}\r\nAuthorization: Bearer bench-${index}\r\nX-Forwarded-For: ${address}\r\n`;
}

/** `{file}` with the hash of the media with this ID. Any bytes are the ciphertext of something, under any key. */
function fileBodies(size: number): (id: string) => string {
  const hashes = new MediaHashes(size);
  const key = { alg: "A256CTR", ext: true, k: KEY.toString("base64url"), key_ops: ["encrypt", "decrypt"], kty: "oct" };
  const file = JSON.stringify({ v: "v2", key, iv: unpadded(IV), hashes: { sha256: "HASH" }, url: "URL" });
  const [start = "", middle = "", end = ""] = file.split(/HASH|URL/);
  return (id) => `{"file":${start}${unpadded(hashes.of(id))}${middle}mxc://${SERVER_NAME}/${id}${end}}`;
}

async function sealedBodies({ media, size, series }: LoadSpec, publicKey: string, file: (id: string) => string): Promise<string[]> {
  if (media === undefined) throw new Error("bodies can't be encrypted beforehand for media without end");
  await olm.init();
  const encryption = new olm.PkEncryption();
  try {
    encryption.set_recipient_key(publicKey);
    return Array.from({ length: Math.ceil(SEALED / media) * media }, (_, index) => {
      const { ciphertext, mac, ephemeral } = encryption.encrypt(file(mediaId(size, series, index % media)));
      return JSON.stringify({ encrypted_body: { ciphertext, mac, ephemeral } });
    });
  } finally {
    encryption.free();
  }
}

function unpadded(bytes: Buffer): string {
  return bytes.toString("base64").replace(/=+$/, "");
}
