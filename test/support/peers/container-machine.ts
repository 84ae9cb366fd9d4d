import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Machine } from "./machine.ts";

/** Mapped when the container starts, handed out one by one. */
const PORTS = Array.from({ length: 32 }, (_, index) => 20_000 + index);
const IMAGE = "matrix-icap-gateway-test-peers";

const SOCKETS = [
  "/var/run/docker.sock",
  `${process.env["HOME"] ?? ""}/.docker/run/docker.sock`,
  `${process.env["XDG_RUNTIME_DIR"] ?? ""}/docker.sock`,
];

export async function containerEngineAnswers(): Promise<boolean> {
  if (process.env["DOCKER_HOST"] === undefined && !SOCKETS.some((path) => existsSync(path))) return false;
  const { getContainerRuntimeClient } = await import("testcontainers");
  return getContainerRuntimeClient().then(
    () => true,
    () => false,
  );
}

/** One container that holds all peers of a test process; testcontainers removes it after the process has ended. */
export async function startContainer(): Promise<Machine> {
  const { GenericContainer, Wait } = await import("testcontainers");
  const image = await GenericContainer.fromDockerfile(fileURLToPath(new URL(".", import.meta.url))).build(IMAGE, { deleteOnExit: false });
  const container = await image
    .withExposedPorts(...PORTS)
    .withWaitStrategy(Wait.forLogMessage("ready"))
    .start();
  const unused = [...PORTS];
  const run = async (command: readonly string[]): Promise<string> => {
    const { exitCode, output, stdout } = await container.exec([...command]);
    if (exitCode !== 0) throw new Error(`${command.join(" ")} ended with ${exitCode}: ${output.slice(-2000)}`);
    return stdout;
  };
  return {
    run,
    makeDirectory: async () => (await run(["mktemp", "-d"])).trim(),
    remove: async (path) => void (await run(["rm", "-rf", path])),
    write: (path, content) => container.copyContentToContainer([{ content, target: path }]),
    read: (path) => run(["cat", path]),
    async start(command, log) {
      const script = 'log=$1; shift; setsid "$@" >>"$log" 2>&1 </dev/null & echo $!';
      const group = (await run(["sh", "-c", script, "sh", log, ...command])).trim();
      return {
        signal: async (name) => void (await container.exec(["kill", `-${name.slice("SIG".length)}`, "--", `-${group}`])),
        alive: async () => (await container.exec(["kill", "-0", "--", `-${group}`])).exitCode === 0,
      };
    },
    async freePort() {
      const inside = unused.pop();
      if (inside === undefined) throw new Error("no port of the container is left");
      return { listen: "0.0.0.0", inside, host: container.getHost(), outside: container.getMappedPort(inside) };
    },
  };
}
