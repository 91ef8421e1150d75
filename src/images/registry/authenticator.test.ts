import assert from "node:assert/strict";
import { test } from "node:test";
import { type Answers, LoopbackServer } from "../../../test/fakes/loopback-server.ts";
import { RegistryRequestError } from "../errors.ts";
import { authorizationFor, type Credentials } from "./authenticator.ts";
import { RegistryPolicy } from "./registry-policy.ts";

const policy = new RegistryPolicy({ rules: { allowed: ["*", "127.0.0.1"], denied: [] }, registries: {} });

const userCredentials: Credentials = { username: "user", password: "sécret:with colon" };
const basic = `Basic ${Buffer.from("user:sécret:with colon").toString("base64")}`;
const { signal } = new AbortController();

async function answerTo(
  header: string,
  options: { readonly credentials?: Credentials; readonly baseUrl?: string } = {},
): Promise<string | undefined> {
  return await authorizationFor({
    header,
    baseUrl: options.baseUrl ?? "http://registry.example:5000",
    place: "registry.example:5000",
    policy,
    scope: "repository:team/app:pull",
    credentials: options.credentials,
    signal,
  });
}

/** The Authorization header after a token server's given answer. */
async function fromTokenServer(
  answers: Answers,
  credentials?: Credentials,
): Promise<{ readonly authorization: string | undefined; readonly server: LoopbackServer }> {
  await using server = await LoopbackServer.start(answers);
  const header = `Bearer realm="${server.url}/token",service="registry.example"`;
  return { authorization: await answerTo(header, credentials === undefined ? {} : { credentials }), server };
}

const json = (answer: unknown): Answers => {
  return () => ({ body: JSON.stringify(answer) });
};

test("Basic is answered with the credentials, and not at all without them", async () => {
  assert.equal(await answerTo('Basic realm="x"', { credentials: userCredentials }), basic);
  assert.equal(await answerTo('Basic realm="x"'), undefined);
  assert.equal(await answerTo('Negotiate, Digest realm="x"', { credentials: userCredentials }), undefined);
  assert.equal(await answerTo("", { credentials: userCredentials }), undefined);
});

test("the token server is asked with service, scope and credentials; without credentials as anybody", async () => {
  const known = await fromTokenServer(json({ token: "t" }), userCredentials);
  assert.equal(known.authorization, "Bearer t");
  const [request] = known.server.requests;
  assert.equal(request?.authorization, basic);
  assert.deepEqual(
    [...(request?.query ?? [])],
    [
      ["service", "registry.example"],
      ["scope", "repository:team/app:pull"],
    ],
  );
  const anybody = await fromTokenServer(json({ token: "t" }));
  assert.equal(anybody.authorization, "Bearer t");
  assert.deepEqual(anybody.server.authorizations(), [""]);
});

test("the challenge's own scope goes before ours, and the realm's own query stays", async () => {
  await using server = await LoopbackServer.start(json({ token: "t" }));
  const scope = "repository:team/app:pull repository:team/base:pull";
  await answerTo(`Bearer realm="${server.url}/token?account=robot",scope="${scope}"`);
  assert.deepEqual(
    [...(server.requests[0]?.query ?? [])],
    [
      ["account", "robot"],
      ["scope", scope],
    ],
  );
});

test("a bearer challenge goes before a basic one", async () => {
  await using server = await LoopbackServer.start(json({ token: "t" }));
  const header = `Basic realm="x", Bearer realm="${server.url}/token"`;
  assert.equal(await answerTo(header, { credentials: userCredentials }), "Bearer t");
});

test("the token is `token` or `access_token`, whichever there is; Harbor writes the other one empty", async () => {
  for (const answer of [
    { token: "t" },
    { access_token: "t" },
    { token: "t", access_token: "other" },
    { token: "t", access_token: "", expires_in: 1800 },
    { token: "", access_token: "t" },
    { token: null, access_token: "t" },
  ]) {
    assert.equal((await fromTokenServer(json(answer))).authorization, "Bearer t", JSON.stringify(answer));
  }
});

test("an answer without a token that a header can carry is an error that names both servers", async () => {
  for (const [answers, problem] of [
    [json({}), /gave no token/],
    [json({ token: "", access_token: null }), /gave no token/],
    [json({ token: "a b" }), /malformed/],
    [json({ token: "a\r\nX-Injected: yes" }), /malformed/],
    [json({ token: 1 }), /malformed/],
    [json("t"), /malformed/],
    [() => ({ body: "<html>" }), /malformed/],
    [() => ({ body: "x".repeat(300_000) }), /more than 262144 bytes/],
  ] as const) {
    await assert.rejects(fromTokenServer(answers), (error) => {
      assert.ok(error instanceof RegistryRequestError);
      assert.match(error.message, problem);
      assert.match(error.message, /^registry\.example:5000: .*token server 127\.0\.0\.1:\d+/);
      return true;
    });
  }
});

test("a token server's refusal says what to do, with and without credentials", async () => {
  const refusal: Answers = () => ({
    status: 401,
    body: '{"errors":[{"code":"UNAUTHORIZED","message":"bad\\npassword"}]}',
  });
  for (const [credentials, cure] of [
    [undefined, /set the task's auth block/],
    [userCredentials, /check the task's auth block/],
  ] as const) {
    await assert.rejects(fromTokenServer(refusal, credentials), (error) => {
      assert.ok(error instanceof RegistryRequestError);
      assert.equal(error.status, 401);
      assert.match(error.message, /token server 127\.0\.0\.1:\d+: bad; password \(401\)/);
      assert.match(error.cure ?? "", cure);
      return true;
    });
  }
});

test("the credentials do not follow a token server's redirect", async () => {
  await using elsewhere = await LoopbackServer.start(json({ token: "t" }));
  const { authorization, server } = await fromTokenServer(
    () => ({ status: 307, headers: { location: `${elsewhere.url}/token` } }),
    userCredentials,
  );
  assert.equal(authorization, "Bearer t");
  assert.deepEqual(server.authorizations(), [basic]);
  assert.deepEqual(elsewhere.authorizations(), [""]);
});

test("a registry over TLS can't have the credentials sent in the clear, nor anywhere but to a web server", async () => {
  await using server = await LoopbackServer.start(json({ token: "t" }));
  const options = { credentials: userCredentials, baseUrl: "https://registry.example" };
  for (const realm of [`${server.url}/token`, "ftp://auth.example/", "file:///etc/passwd"]) {
    await assert.rejects(answerTo(`Bearer realm="${realm}"`, options), /token server that is not secure/);
  }
  for (const header of ["Bearer", 'Bearer realm="/token"', 'Bearer realm=""']) {
    await assert.rejects(answerTo(header, options), /names no token server/);
  }
  assert.deepEqual(server.requests, []);
});
