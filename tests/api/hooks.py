"""What schemathesis must know of the API: the formats of its schemas, and how an admin logs in."""

import ipaddress
import json
import os
import re
import unicodedata
from urllib.parse import parse_qsl, unquote, urlsplit

import requests
import schemathesis
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from schemathesis.core.failures import AcceptedNegativeData

SERVER = os.environ["ADDA_SERVER"]
ADMIN = {"username": os.environ["ADDA_ADMIN"], "password": os.environ["ADDA_ADMIN_PASSWORD"]}

ASCII = st.characters(codec="ascii", categories=["Ll", "Lu", "Nd"])
VISIBLE = st.characters(categories=["Ll", "Lu", "Nd"])
LINE = st.text(VISIBLE, min_size=1, max_size=20)

schemathesis.openapi.format("visible-name", LINE)
schemathesis.openapi.format("visible-line", LINE)
schemathesis.openapi.format("nonce", st.text(ASCII, min_size=1, max_size=20))
schemathesis.openapi.format("message-text", st.text(VISIBLE, min_size=1, max_size=200))
schemathesis.openapi.format("password", st.text(ASCII, max_size=20).map(lambda end: f"kettle on the stove {end}"))
schemathesis.openapi.format("ip", st.ip_addresses(v=4).map(str))

# Sets of characters, as in `src/model/names.rs`. BLANK ones are allowed in a name but show nothing by themselves.
SPACE = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
JOINER = r"\u200c\u200d"
BLANK = SPACE + JOINER + r"\u2800\ufe00-\ufe0f\ufffc\U00016fe4\U0001d159\U000e0100-\U000e01ef"
INVISIBLE = (
    r"\0-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
NOT_IN_NAMES = re.compile(f"[{INVISIBLE}]|(^|[{SPACE}{JOINER}])[{JOINER}]|[{JOINER}]([{SPACE}]|$)")


def trim(text: str) -> str:
    return re.sub(rf"\A[{SPACE}]+|[{SPACE}]+\Z", "", text)


def is_visible_name(text: str) -> bool:
    return re.search(f"[^{BLANK}]", text) is not None and not NOT_IN_NAMES.search(trim(text))


def is_visible_line(text: str) -> bool:
    return trim(text) == "" or is_visible_name(text)


def is_message_text(text: str) -> bool:
    return re.search(f"[^{BLANK}{INVISIBLE}]", text) is not None


def is_password(text: str) -> bool:
    return len(set(unicodedata.normalize("NFC", text).lower())) > 1


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# The rules of the formats. The schemas have the lengths. The names that only a room must not have count as valid here.
RULES = {
    "visible-name": is_visible_name,
    "visible-line": is_visible_line,
    "nonce": lambda text: True,
    "message-text": is_message_text,
    "password": is_password,
    "ip": is_ip,
}


@schemathesis.auth(refresh_interval=300, retry_on=[401])
class Login:
    """An admin's login. It is repeated when a test has ended the session before it."""

    def get(self, case, context):
        reply = requests.post(f"{SERVER}/api/session", json=ADMIN, timeout=10)
        reply.raise_for_status()
        return reply.json()["data"]["token"]

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops the failure that an invalid request was accepted, if that request is valid.

    To violate one of our formats, schemathesis takes any text, because it does not know the rules. Most texts are
    valid.
    """
    if not isinstance(failure, AcceptedNegativeData):
        return True
    violates_format = any("format" in mutation.keywords for mutation in case.meta.phase.data.mutations)
    return not (violates_format and is_valid(case, response.request))


def is_valid(case, request) -> bool:
    """Whether a request, as it was sent, agrees with the description and with the rules of the formats."""
    operation = case.operation
    path = {name: unquote(str(value)) for name, value in case.path_parameters.items()}
    # The server reads the first value of a name.
    query = dict(reversed(parse_qsl(urlsplit(request.url).query, keep_blank_values=True)))
    if declared := operation.get_body_for_media_type(case.media_type):
        try:
            body = body_of(request, case.media_type)
        except ValueError:
            return False
        if not agrees(body, declared.validation_schema):
            return False
        # The name in the query is read only if the body gives none.
        if isinstance(body, dict) and body.get("username") is not None:
            query.pop("username", None)
    sent = [(operation.path_parameters, path), (operation.query, query), (operation.headers, case.headers)]
    return all(
        parameter_agrees(texts[parameter.name], parameter.validation_schema)
        for parameters, texts in sent
        for parameter in parameters
        if parameter.name in texts
    )


def body_of(request, media_type: str):
    body = request.body or b""
    text = body.decode() if isinstance(body, bytes) else body
    return json.loads(text) if media_type == "application/json" else text


def parameter_agrees(text: str, schema) -> bool:
    return agrees(text, schema) or (text.isdecimal() and agrees(int(text), schema))


def agrees(value, schema) -> bool:
    return Draft202012Validator(schema, formats=RULES, validate_formats=True).is_valid(value)
