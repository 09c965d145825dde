"""The name of a project with everything that a receiver of alerts might take for more than text."""

HOSTILE = "<!channel> <http://evil|click> & `x` ```y \u202egnp\u2028#2\u0085 https://evil.example/ <b>bold</b> a@e.vil"
AS_SLACK_SHOWS_IT = (
    "&lt;!channel&gt; &lt;http: //evil|click&gt; &amp; 'x' '''y  gnp #2  "
    "https: //evil.\u2060example/ &lt;b&gt;bold&lt;/b&gt; a@\u2060e.\u2060vil"
)
