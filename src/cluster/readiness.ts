/** From what each worker says of itself to what is said of all of them. */

export interface WorkerReadiness {
  readonly ready: boolean;
  readonly degraded: boolean;
  readonly problems: readonly string[];
}

/** One that serves; undefined: it did not answer. */
export interface HeardWorker {
  readonly number: number;
  readonly said: WorkerReadiness | undefined;
}

/**
 * Ready while any of them is: the others get their requests too, but what is taken out of service because of one would serve nobody. A problem that
 * all of them have is told once, others with the workers that have them.
 * @param problems of those that don't serve
 */
export function readinessOfAll(workers: readonly HeardWorker[], problems: readonly string[]): WorkerReadiness {
  const heard = workers.flatMap(({ number, said }) => (said === undefined ? [] : [{ number, said }]));
  const having = new Map<string, number[]>();
  for (const { number, said } of heard) {
    for (const problem of new Set(said.problems)) having.set(problem, [...(having.get(problem) ?? []), number]);
  }
  const told = [...having].map(([problem, numbers]) => (numbers.length === heard.length ? problem : `${nameOf(numbers)}: ${problem}`));
  const silent = workers.filter(({ said }) => said === undefined).map(({ number }) => `worker ${number} does not answer`);
  const all = [...told, ...silent, ...problems];
  return {
    ready: heard.some(({ said }) => said.ready),
    degraded: all.length > 0 || heard.some(({ said }) => said.degraded),
    problems: all,
  };
}

function nameOf(numbers: readonly number[]): string {
  return numbers.length === 1 ? `worker ${numbers[0]}` : `workers ${numbers.join(", ")}`;
}
