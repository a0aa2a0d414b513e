/**
 * How many drafts the next step verifies. A fixed number, or what pays (`"auto"`): decided from the share of drafts that are accepted, and
 * from how long steps take with and without them at the batch of the moment.
 *
 * Times are compared in pairs. What a step takes depends on batch, context, machine and neighbours, which all drift; so the policy tries
 * another number of drafts for a few steps now and then, and keeps the ratio of these to the steps right before. A batch that was not
 * measured yet is taken to be like the nearest one that was. Each range of batch sizes has its own trials and times, so that a batch that
 * wavers between two of them teaches about both. A step in which some have no drafts costs less and tells of fewer; its time is taken to rise
 * with the drafts in it. What cannot be had (there is no room for it) is not waited for.
 *
 * Answers do not depend on any of this: a draft is accepted only if it is the token that would have been drawn without it
 * (docs/numerics.md, 5), so the number of drafts may change with every step.
 * @module
 */

import { speedup, stepLength } from "./speculation.js";

/** Steps of one kind in a row that are measured, and those before them that are not: they may be recorded, and follow others. */
const MEASURED_STEPS = 8;
const SKIPPED_STEPS = 3;

/** So many steps of other batches may come between, and it is still called a row. */
const LONGEST_BREAK = 64;

/**
 * After so many steps without drafts, the draft head's cache has a gap that shows: from the next ones with drafts, whose are accepted less
 * often, no share is learned (docs/numerics.md, 5).
 */
const SHORTEST_GAP = 4;
const COLD_STEPS = 8;

/** Steps with another number of drafts than was asked for (there is no room, or sequences are guided) before it is taken as it is. */
const PATIENCE = 32;

/** Of a step's sequences, drafts are had by so many at least, where its time is to tell what they cost. */
const LEAST_DRAFTING = 1 / 4;

/** Steps between trials: the first few, later ones of a number of drafts that may be better, and of one that is far behind. */
const STEPS_BETWEEN_FIRST_TRIALS = 32;
const FEW_SAMPLES = 4;
const FEW_HOPELESS_SAMPLES = 3;
const STEPS_BETWEEN_TRIALS = 512;
const STEPS_BETWEEN_HOPELESS_TRIALS = 1024;
const HOPELESS = 0.8;

/** Another number of drafts has to be better by so much: what is measured has noise. */
const LEAST_GAIN = 1.03;

/** What one draft adds to a step where nothing has been measured; and how often it is taken to be accepted. */
const FIRST_COST = 0.25;
const FIRST_SHARE = 0.8;

/** Weight of the newest observation, once there are as many as that makes. */
const SHARE_WEIGHT = 1 / 256;
const COST_WEIGHT = 1 / 3;

/** A running mean: of all values at first, then of the latest. */
class RunningMean {
  readonly #weight: number;
  #count = 0;
  #mean = 0;

  constructor(weight: number) {
    this.#weight = weight;
  }

  get value(): number | undefined {
    return this.#count === 0 ? undefined : this.#mean;
  }

  get count(): number {
    return this.#count;
  }

  add(value: number): void {
    this.#count += 1;
    this.#mean += (value - this.#mean) * Math.max(this.#weight, 1 / this.#count);
  }
}

/** How drafts fare, by their place in a step: counts of all, and shares of the latest. */
class Acceptance {
  /** Drafts that were verified behind accepted ones only, and those accepted, by place. */
  readonly tried: number[] = [];
  readonly accepted: number[] = [];
  readonly #shares: RunningMean[] = [];

  /** Counts what became of a sequence's drafts; `typical`: they say something about the next ones. */
  count(drafts: number, accepted: number, typical: boolean): void {
    for (let place = 0; place <= accepted && place < drafts; place++) {
      const taken = place < accepted;
      this.tried[place] = (this.tried[place] ?? 0) + 1;
      this.accepted[place] = (this.accepted[place] ?? 0) + Number(taken);
      if (!typical) continue;
      this.#shares[place] ??= new RunningMean(SHARE_WEIGHT);
      this.#shares[place]?.add(Number(taken));
    }
  }

  /** Of the drafts at each place that were tried, the share that was accepted of late. */
  get shares(): number[] {
    return this.#shares.map((share) => share.value as number);
  }
}

/** A step that only decoded. */
export interface DecodeStep {
  /** Its sequences. */
  batch: number;
  /** The most drafts that any of them had. */
  drafts: number;
  /** Drafts that all of them had, over what all would have had with as many. */
  drafting: number;
  ms: number;
}

/** Steps of one batch bucket and one number of drafts, one after another. */
class Stretch {
  readonly drafts: number;
  /** The first steps after a gap have longer to wait: shares are to be learned too. */
  readonly #enough: number;
  steps = 0;
  /** The number of the latest, of all steps. */
  latest = 0;
  /** The latest. */
  #measured: DecodeStep[] = [];

  constructor(drafts: number, before: Stretch | undefined) {
    this.drafts = drafts;
    this.#enough = SKIPPED_STEPS + MEASURED_STEPS + (before?.drafts === 0 ? COLD_STEPS : 0);
  }

  add(step: DecodeStep, number: number): void {
    this.steps += 1;
    this.latest = number;
    this.#measured.push(step);
    if (this.#measured.length > MEASURED_STEPS) this.#measured.shift();
  }

  get isMeasured(): boolean {
    return this.steps >= this.#enough;
  }

  get isJustMeasured(): boolean {
    return this.steps === this.#enough;
  }

  get ms(): number {
    return undisturbed(this.#measured.map(({ ms }) => ms));
  }

  get drafting(): number {
    return this.#measured.reduce((sum, { drafting }) => sum + drafting, 0) / this.#measured.length;
  }
}

/** What is known of a range of batch sizes. */
class Bucket {
  /** Of a step with `drafts` drafts (the index), its time over that of one without. */
  readonly #costs: RunningMean[] = [];
  /** Of the batch sizes: the logarithm of the largest. */
  readonly key: number;
  drafts: number;
  /** Another number of drafts that is tried; and one that was to be tried and was not to be had. */
  trial: number | undefined;
  unreached: number | undefined;
  /** Steps since the last trial; and those, one after another, with a number of drafts that was not asked for. */
  steps = 0;
  others = 0;
  now: Stretch | undefined;
  before: Stretch | undefined;

  constructor(key: number, drafts: number) {
    this.key = key;
    this.drafts = drafts;
  }

  /** What its steps are to have. */
  get asked(): number {
    return this.trial ?? this.drafts;
  }

  /** Undefined where it was not measured. */
  cost(drafts: number): number | undefined {
    return drafts === 0 ? 1 : this.#costs[drafts]?.value;
  }

  /** How often it was measured. */
  samples(drafts: number): number {
    return this.#costs[drafts]?.count ?? 0;
  }

  learn(drafts: number, cost: number): void {
    this.#costs[drafts] ??= new RunningMean(COST_WEIGHT);
    this.#costs[drafts]?.add(cost);
  }

  get measured(): boolean {
    return this.#costs.length > 0;
  }
}

/** What speculation did since the engine was loaded, and what it does now. */
export interface SpeculationStats {
  /** Drafts that sequences had in the last step that only decoded: what is thought to pay at the batch of the moment, as far as there was room. */
  drafts: number;
  /** Steps of a sequence that verified drafts, drafts in them, and those that were accepted. */
  draftedSteps: number;
  draftTokens: number;
  acceptedTokens: number;
  /** Accepted drafts by their place in a step. */
  acceptedByPlace: number[];
  /** Tokens that a step with as many drafts draws now, on average; 1 without. */
  stepLength: number;
  /** How much faster tokens come than without drafts; 1 without. Absent where that was not measured: always, if the number of drafts was demanded. */
  speedup?: number;
}

export class DraftPolicy {
  readonly #most: number;
  readonly #auto: boolean;
  readonly #acceptance = new Acceptance();
  readonly #buckets = new Map<number, Bucket>();
  #last: { bucket?: Bucket; drafts: number } = { drafts: 0 };
  /** Steps that only decoded; those without drafts, one after another; those that are still to come before drafts are typical again. */
  #steps = 0;
  #gap = 0;
  #cold = 0;
  #draftedSteps = 0;
  #draftTokens = 0;

  /** At most `most` drafts (0: none), always as many unless `auto`. */
  constructor(most: number, auto: boolean) {
    this.#most = most;
    this.#auto = auto && most > 0;
  }

  /** Drafts for each sequence of a step in which `batch` of them decode. Some may get fewer, or all: that is seen in `timed`. */
  drafts(batch: number): number {
    if (!this.#auto) return this.#most;
    return batch === 0 ? 0 : this.#bucket(batch).asked;
  }

  /** Counts what became of a sequence's drafts in one step. */
  count(drafts: number, accepted: number): void {
    if (drafts === 0) return;
    this.#draftedSteps += 1;
    this.#draftTokens += drafts;
    this.#acceptance.count(drafts, accepted, this.#cold === 0);
  }

  /** Learns from the time of a step, before its drafts are counted. */
  timed(step: DecodeStep): void {
    const { batch, drafts, drafting } = step;
    this.#steps += 1;
    this.#noteGap(drafts);
    this.#last = { drafts };
    if (!this.#auto) return;
    const bucket = this.#bucket(batch);
    this.#last = { bucket, drafts };
    if (drafts > 0 && drafting < LEAST_DRAFTING) {
      this.#missed(bucket, drafts);
      return;
    }
    const stretch = this.#stretch(bucket, drafts);
    stretch.add(step, this.#steps);
    bucket.steps += 1;
    if (stretch.isJustMeasured) this.#learn(bucket, stretch);
    if (drafts !== bucket.asked) this.#missed(bucket, drafts);
    else {
      bucket.others = 0;
      if (!stretch.isMeasured) return;
      if (bucket.trial === undefined) this.#mayTry(bucket);
      else this.#decide(bucket);
    }
  }

  get stats(): SpeculationStats {
    const { bucket, drafts } = this.#last;
    const length = stepLength(this.#acceptance.shares, drafts);
    const cost = drafts === 0 ? 1 : bucket?.cost(drafts);
    return {
      drafts,
      draftedSteps: this.#draftedSteps,
      draftTokens: this.#draftTokens,
      acceptedTokens: this.#acceptance.accepted.reduce((sum, count) => sum + count, 0),
      acceptedByPlace: [...this.#acceptance.accepted],
      stepLength: length,
      ...(cost !== undefined && { speedup: speedup(length, cost) }),
    };
  }

  #noteGap(drafts: number): void {
    if (drafts === 0) {
      this.#gap += 1;
      return;
    }
    if (this.#gap >= SHORTEST_GAP) this.#cold = COLD_STEPS;
    else if (this.#cold > 0) this.#cold -= 1;
    this.#gap = 0;
  }

  /** Batches of the next power of two: the runner's programs, but for sizes that its user chose. */
  #bucket(batch: number): Bucket {
    const key = Math.ceil(Math.log2(batch));
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      bucket = new Bucket(key, this.#measuredNear(key)?.drafts ?? 1);
      this.#buckets.set(key, bucket);
    }
    return bucket;
  }

  /** Where a step belongs: behind those before it of its bucket, if they were like it and not long ago. */
  #stretch(bucket: Bucket, drafts: number): Stretch {
    const { now } = bucket;
    const recent = now && this.#steps - now.latest <= LONGEST_BREAK ? now : undefined;
    if (recent?.drafts === drafts) return recent;
    bucket.before = recent;
    bucket.now = new Stretch(drafts, recent);
    return bucket.now;
  }

  /** Compares a stretch with the one right before it. */
  #learn(bucket: Bucket, now: Stretch): void {
    const { before } = bucket;
    if (!before?.isMeasured) return;
    const ratio = now.ms / before.ms;
    if (now.drafts === 0) bucket.learn(before.drafts, costOfAll(1 / ratio, before.drafting));
    else {
      const cost = bucket.cost(before.drafts);
      if (cost !== undefined) bucket.learn(now.drafts, costOfAll(ratio * costOfSome(cost, before.drafting), now.drafting));
    }
  }

  /** A step had another number of drafts than was asked for: one that was under way before; or else, some time later, one has to do with it. */
  #missed(bucket: Bucket, drafts: number): void {
    bucket.others += 1;
    if (bucket.others < PATIENCE) return;
    bucket.others = 0;
    if (bucket.trial === undefined) bucket.drafts = drafts;
    bucket.unreached = bucket.trial;
    bucket.trial = undefined;
  }

  /** Ends a trial. Keeps to what there is, unless something else is better by more than noise. */
  #decide(bucket: Bucket): void {
    bucket.trial = bucket.unreached = undefined;
    bucket.steps = 0;
    bucket.drafts = this.#best(bucket, bucket.drafts);
  }

  #best(bucket: Bucket, current: number): number {
    let best = current;
    for (let drafts = 0; drafts <= this.#most; drafts++) {
      const least = this.#gain(bucket, best) * (best === current ? LEAST_GAIN : 1);
      if (bucket.cost(drafts) !== undefined && this.#gain(bucket, drafts) > least) best = drafts;
    }
    return best;
  }

  /** Begins a trial if one is due: of one draft more or less, whichever promises more. */
  #mayTry(bucket: Bucket): void {
    const { asked, unreached } = bucket;
    // Costs are told beside a step without drafts, which has to be measured first.
    if (bucket.cost(asked) === undefined) bucket.trial = 0;
    else {
      const near = [asked - 1, asked + 1].filter((drafts) => drafts >= 0 && drafts <= this.#most);
      const [first, ...more] = near.length > 1 ? near.filter((drafts) => drafts !== unreached) : near;
      if (first === undefined) return;
      const drafts = more.reduce((a, b) => (this.#gain(bucket, b) > this.#gain(bucket, a) ? b : a), first);
      if (bucket.steps >= this.#wait(bucket, drafts)) bucket.trial = drafts;
    }
  }

  /** Steps before this number of drafts is tried. */
  #wait(bucket: Bucket, drafts: number): number {
    const samples = bucket.samples(drafts === 0 ? bucket.asked : drafts);
    const hopeless = this.#gain(bucket, drafts) < this.#gain(bucket, bucket.asked) * HOPELESS;
    if (hopeless && (samples === 0 || samples >= FEW_HOPELESS_SAMPLES)) return STEPS_BETWEEN_HOPELESS_TRIALS;
    return samples < FEW_SAMPLES ? samples * STEPS_BETWEEN_FIRST_TRIALS : STEPS_BETWEEN_TRIALS;
  }

  #gain(bucket: Bucket, drafts: number): number {
    const { shares } = this.#acceptance;
    return speedup(stepLength(shares.length > 0 ? shares : [FIRST_SHARE], drafts), this.#cost(bucket, drafts));
  }

  /** As measured here, else along the line through no drafts and the most that were; else as in the nearest bucket that was measured. */
  #cost(bucket: Bucket, drafts: number): number {
    const known = bucket.cost(drafts);
    if (known !== undefined) return known;
    for (let fewer = drafts - 1; fewer > 0; fewer--) {
      const cost = bucket.cost(fewer);
      if (cost !== undefined) return 1 + ((cost - 1) * drafts) / fewer;
    }
    const like = this.#measuredNear(bucket.key);
    return like === undefined || like === bucket ? 1 + FIRST_COST * drafts : this.#cost(like, drafts);
  }

  /** The nearest bucket that was measured. */
  #measuredNear(key: number): Bucket | undefined {
    const measured = [...this.#buckets.values()].filter((bucket) => bucket.measured);
    return measured.sort((a, b) => Math.abs(a.key - key) - Math.abs(b.key - key))[0];
  }
}

/** The cost of a step where some have drafts, as one where all have them would cost; and the other way about. Each draft costs as much. */
function costOfAll(cost: number, drafting: number): number {
  return 1 + (cost - 1) / drafting;
}

function costOfSome(cost: number, drafting: number): number {
  return 1 + (cost - 1) * drafting;
}

/** The lower quartile: what else the machine does makes some steps longer, and none shorter. */
function undisturbed(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 2] as number;
}
