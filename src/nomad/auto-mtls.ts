// go-plugin's AutoMTLS: the host puts its one-off certificate into PLUGIN_CLIENT_CERT; the plugin answers with its own in the
// handshake line, and each accepts only the other's (mtls.go of go-plugin). Nomad does not ask for it today.
import type { SecureServerOptions } from "node:http2";

export interface AutoMtls {
  readonly tls: SecureServerOptions & { cert: string; key: string };
  /** DER. */
  readonly certificate: Uint8Array;
}

const validityMs = 30 * 365 * 24 * 60 * 60 * 1000;
const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;

/** `clientCertificate` is the host's, in PEM. The library is loaded only here: the start without mTLS does not pay for it. */
export async function createAutoMtls(clientCertificate: string): Promise<AutoMtls> {
  // The library injects its dependencies by decorators.
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const keys = await crypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: "CN=localhost, O=litegix",
    notBefore: new Date(Date.now() - 30_000),
    notAfter: new Date(Date.now() + validityMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyAgreement | x509.KeyUsageFlags.keyCertSign,
        true,
      ),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
      new x509.SubjectAlternativeNameExtension([{ type: "dns", value: "localhost" }]),
    ],
  });
  const privateKey = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    certificate: new Uint8Array(certificate.rawData),
    tls: {
      cert: certificate.toString("pem"),
      key: x509.PemConverter.encode(privateKey, "PRIVATE KEY"),
      ca: clientCertificate,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.2",
    },
  };
}
