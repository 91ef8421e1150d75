// The base of every error of this program: a literal code that docs/errors.md explains, the facts as readonly fields, and a message
// of one printable line. The code ends the message, since a user of Nomad sees nothing else of an error.

export abstract class DriverError<Code extends string = string> extends Error {
  readonly code: Code;

  /** `facts` become fields, `cause` the error's cause. A text that names its code already keeps it where it is. */
  constructor(code: Code, text: string, { cause, ...facts }: Readonly<Record<string, unknown>> = {}) {
    const line = printable(text, Number.POSITIVE_INFINITY);
    super(line.includes(`(${code})`) ? line : `${line} (${code})`, cause === undefined ? undefined : { cause });
    this.code = code;
    // The bundle has no class names.
    this.name = `${code.replaceAll(/(?:^|_)([a-z])/g, (_, letter: string) => letter.toUpperCase())}Error`;
    Object.assign(this, facts);
  }

  /** The message without its code, for the message of another error. */
  get text(): string {
    const end = ` (${this.code})`;
    return this.message.endsWith(end) ? this.message.slice(0, -end.length) : this.message;
  }
}

type WithCause<Facts> = Facts & { readonly cause?: unknown };

type DriverErrorClass<Code extends string, Facts extends object> = new (
  ...facts: object extends Facts ? [facts?: WithCause<Facts>] : [facts: WithCause<Facts>]
) => DriverError<Code> & Readonly<Facts>;

/** An error's whole definition: `class X extends driverError(code, (facts: { path: string }) => text) {}`. */
export function driverError<Code extends string, Facts extends object>(
  code: Code,
  describe: (facts: Facts) => string,
): DriverErrorClass<Code, Facts> {
  class Described extends DriverError<Code> {
    constructor(facts: WithCause<Facts>) {
      super(code, describe(facts), facts);
    }
  }
  return Described as unknown as DriverErrorClass<Code, Facts>;
}

/** An error's message without its code, for another error's message. */
export function reasonOf(error: unknown): string {
  if (error instanceof DriverError) return error.text;
  return error instanceof Error ? error.message : String(error);
}

/**
 * Text from outside (a guest, a registry, a program), made fit for a message: one line without control or invisible characters,
 * at most `maxChars` long.
 */
export function printable(text: string, maxChars = 300): string {
  const line = text.trim().replaceAll(/\s*[\r\n\u2028\u2029]+\s*/g, "; ");
  // Cut first, so that no half of a surrogate pair is left.
  return line.slice(0, maxChars).replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]+/gu, " ");
}
