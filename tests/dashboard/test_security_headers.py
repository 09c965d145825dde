"""The page may run only the inline scripts that it was served with, and nobody may frame it."""

import base64
import hashlib

from dashboard.security_headers import content_policy


def test_only_the_inline_scripts_that_the_page_was_served_with_run() -> None:
    script = b"window.x = 1"
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    policy = content_policy(b"<script>%s</script><script src='/a.js'></script>" % script)
    assert f"script-src 'self' blob: 'sha256-{digest}';" in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]
    assert "unsafe-eval" not in policy
    assert "frame-ancestors 'none'" in policy
