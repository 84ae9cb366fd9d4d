/** What the demonstration sends, for a shell. */
import { BASE_PATH } from "./client.ts";
import { type DemoMedia, SERVER_NAME } from "./demo-media.ts";
import type { EncryptedFile } from "./encrypted-attachment.ts";
import { TOKEN } from "./tour.ts";

/** Lines to print; each command can be pasted by itself. Nothing in them needs quoting beyond what they have. */
export function curlCommands(gateway: string, admin: string, { encryptedClean, encryptedEicar }: DemoMedia): string[] {
  const base = gateway + BASE_PATH;
  const curl = `curl -i -H 'Authorization: Bearer ${TOKEN}'`;
  const get = (endpoint: string, mediaId: string): string => `${curl} ${base}/${endpoint}/${SERVER_NAME}/${mediaId}`;
  const post = (endpoint: string, file: EncryptedFile): string => `${curl} ${base}/${endpoint} -d '${JSON.stringify({ file })}'`;
  return [
    "# a clean file, and EICAR",
    get("download", "clean"),
    get("download", "eicar"),
    get("scan", "eicar"),
    "",
    "# encrypted EICAR, and an encrypted clean file, which comes back encrypted",
    post("scan_encrypted", encryptedEicar),
    post("download_encrypted", encryptedClean),
    "",
    "# without a token; the key that clients encrypt request bodies to; whether the gateway is fit for work",
    `curl -i ${base}/download/${SERVER_NAME}/clean`,
    `curl -i ${base}/public_key`,
    `curl -i ${admin}/health/ready`,
  ];
}
