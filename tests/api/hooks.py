"""What schemathesis must know of the API: texts for the formats of its schemas, and how an admin logs in."""

import os

import requests
import schemathesis
from hypothesis import strategies as st

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


@schemathesis.auth(refresh_interval=300, retry_on=[401])
class Login:
    """An admin's login. It is repeated when a test has ended the session before it."""

    def get(self, case, context):
        reply = requests.post(f"{SERVER}/api/session", json=ADMIN, timeout=10)
        reply.raise_for_status()
        return reply.json()["data"]["token"]

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"
