"""One answer of an authenticator, checked in a process of its own: it is a stranger's bytes, and the library is large.

`python -m tidegate.runtime.web.passkey_check` reads a question as JSON (`Question`) and prints what was found: `id`,
`count`, and for a new passkey `public_key`; or `refused` with the reason. The rules are those of Web Authentication
Level 3, sections 7.1 and 7.2, by the library webauthn. That a count went back is for the one who asks (`passkeys.py`).
"""

import sys

import msgspec
import webauthn
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """challenge, public_key: base64url; public_key "" for one that is being made."""

    credential: dict[str, object]
    challenge: str
    rp_id: str
    origin: str
    public_key: str = ""


def check(asked: Question) -> dict[str, object]:
    """What an answer is worth. Raises WebAuthnException."""
    challenge = base64url_to_bytes(asked.challenge)
    if not asked.public_key:
        made = webauthn.verify_registration_response(
            credential=asked.credential, expected_challenge=challenge, expected_rp_id=asked.rp_id,
            expected_origin=asked.origin, require_user_verification=True,
        )  # fmt: skip
        key = bytes_to_base64url(made.credential_public_key)
        return {"id": bytes_to_base64url(made.credential_id), "count": made.sign_count, "public_key": key}
    found = webauthn.verify_authentication_response(
        credential=asked.credential, expected_challenge=challenge, expected_rp_id=asked.rp_id,
        expected_origin=asked.origin, credential_public_key=base64url_to_bytes(asked.public_key),
        credential_current_sign_count=0, require_user_verification=True,
    )  # fmt: skip
    return {"id": bytes_to_base64url(found.credential_id), "count": found.new_sign_count}


def main() -> int:
    """Answer the one question; every refusal is in the answer."""
    found: dict[str, object]
    try:
        found = check(msgspec.json.decode(sys.stdin.buffer.read(), type=Question))
    except (WebAuthnException, ValueError, TypeError, KeyError) as why:
        found = {"refused": f"{type(why).__name__}: {why}"[:200]}
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
