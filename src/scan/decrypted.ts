import { createAttachmentDecryptor, type Attachment } from "../crypto/attachment.ts";
import type { Spool } from "../media/spool.ts";

/** A pass over the bytes as scanners get them: those of the spool, decrypted where they are an attachment's. @throws as the spool's own pass does. */
export function decrypted(spool: Spool, attachment: Attachment | undefined): AsyncIterable<Buffer> {
  return attachment === undefined ? spool.read() : decrypt(spool.read(), attachment);
}

async function* decrypt(ciphertext: AsyncIterable<Buffer>, attachment: Attachment): AsyncGenerator<Buffer> {
  const decryptor = createAttachmentDecryptor(attachment);
  for await (const chunk of ciphertext) yield decryptor.update(chunk);
}
