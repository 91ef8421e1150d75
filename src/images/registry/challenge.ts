// `WWW-Authenticate` (RFC 9110, section 11.6.1): the schemes that registries use, with their parameters.

export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
}

const maxHeaderChars = 8_192;
const tokenPattern = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const quotedPattern = /"((?:[^"\\]|\\.)*)"/y;

/** Reads the well-formed beginning; the first malformed part ends the list. */
export function parseChallenges(header: string): readonly Challenge[] {
  const text = header.slice(0, maxHeaderChars);
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let offset = 0;
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = offset;
    const found = pattern.exec(text);
    offset = found === null ? offset : pattern.lastIndex;
    return found;
  };
  for (;;) {
    match(/[\s,]*/y);
    const token = match(tokenPattern)?.[0];
    if (token === undefined) return challenges;
    if (match(/\s*=\s*/y) === null) {
      challenges.push({ scheme: token.toLowerCase(), parameters: new Map() });
      continue;
    }
    const quoted = match(quotedPattern)?.[1];
    const value = quoted === undefined ? match(tokenPattern)?.[0] : quoted.replace(/\\(.)/g, "$1");
    const current = challenges.at(-1);
    if (value === undefined || current === undefined) return challenges;
    current.parameters.set(token.toLowerCase(), value);
  }
}
