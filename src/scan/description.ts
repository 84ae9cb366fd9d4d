/** What a service is told of the bytes: a name and a type that follow from them, or nothing. Never what an uploader claims. */

export interface Description {
  readonly mime: string;
  /** No dot. */
  readonly extension: string;
}

interface Described {
  readonly contentType: string;
  readonly fileName: string;
}

const UNNAMED: Described = { contentType: "application/octet-stream", fileName: "media" };

const MEDIA_TYPE = /^[a-z0-9][\w!#$&^.+-]{0,126}\/[a-z0-9][\w!#$&^.+-]{0,126}$/i;
const EXTENSION = /^[a-z0-9]{1,16}$/i;

/** For a type that is not known, or not to be told, the same for all bytes. */
export function describe(type: Description | undefined): Described {
  if (type === undefined) return UNNAMED;
  const { mime, extension } = type;
  return {
    contentType: MEDIA_TYPE.test(mime) ? mime : UNNAMED.contentType,
    fileName: EXTENSION.test(extension) ? `media.${extension.toLowerCase()}` : UNNAMED.fileName,
  };
}
