import { ensureNginx } from "../support/nginx.ts";
import { python } from "../support/synapse-environment.ts";

/**
 * Gets what the end-to-end tests need beside the integration tests' peers: Synapse and vodozemac from PyPI, nginx from Debian's packages. Quick when
 * all is there.
 * @throws Error that says what is missing, and what to do
 */
export async function preparePrerequisites(): Promise<void> {
  await python();
  await ensureNginx();
}
