"""The web: one Flask application on top of the jobs."""

from __future__ import annotations

from flask import Flask

from mkiso.config import Config
from mkiso.installation import Installation
from mkiso.web import answers, api, guards, history, monitor, orders, pages, words
from mkiso.web.live import THREADS_KEPT_FREE, LiveJobs, Polls

KEPT = 24 * 60 * 60
LARGEST_BODY, MOST_FIELDS = 64 * 1024, 100


def create_app(config: Config) -> Flask:
    """The WSGI application. Raises ConfigurationError where the ledger can never be opened."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    installation = Installation(config)
    app.extensions["mkiso"] = (installation, LiveJobs(config.server.threads - THREADS_KEPT_FREE))
    app.config.update(MAX_CONTENT_LENGTH=LARGEST_BODY, MAX_FORM_MEMORY_SIZE=LARGEST_BODY, MAX_FORM_PARTS=MOST_FIELDS)
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = KEPT
    app.before_request(guards.refuse_foreign_names)
    app.before_request(guards.refuse_odd_forwarding)
    app.before_request(guards.require_token)
    app.before_request(guards.require_text)
    app.before_request(guards.refuse_foreign_posts)
    for room in (orders, api, monitor, pages, history):
        app.register_blueprint(room.blueprint)
    answers.register(app)
    words.register(app)
    app.wsgi_app = Polls(app.wsgi_app, installation.glance, config.server)  # type: ignore[method-assign]
    return app
