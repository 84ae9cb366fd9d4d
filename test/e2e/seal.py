"""Seals standard input, by vodozemac's PkEncryption, for the public key that is the only argument; prints encrypted_body's JSON."""

import base64
import json
import sys

import vodozemac

recipient = vodozemac.Curve25519PublicKey.from_base64(sys.argv[1])
message = vodozemac.PkEncryption.from_key(recipient).encrypt(sys.stdin.buffer.read())
# Not `to_base64()`: the order of what it returns is not what its documentation says.
parts = {"ciphertext": message.ciphertext, "mac": message.mac, "ephemeral": message.ephemeral_key}
print(json.dumps({name: base64.b64encode(part).decode().rstrip("=") for name, part in parts.items()}))
