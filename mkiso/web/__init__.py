"""The web: one Flask application on top of the jobs."""

from __future__ import annotations

from flask import Flask

from mkiso.config import Config
from mkiso.installation import Installation
from mkiso.web import answers, api, desk, guards, history, languages, orders, pages, relays
from mkiso.web.following import FollowedJobs, Polls, Shared
from mkiso.web.live import THREADS_KEPT_FREE, LiveJobs
from mkiso.web.pickup import Pickup

KEPT = 24 * 60 * 60
LARGEST_BODY, MOST_FIELDS = 64 * 1024, 100


def create_app(config: Config) -> Flask:
    """The WSGI application. Raises ConfigurationError where the ledger can never be opened."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    installation, live = Installation(config), LiveJobs(config.server.threads - THREADS_KEPT_FREE)
    followed = FollowedJobs(installation.ledger.history)
    app.extensions["mkiso"] = (installation, live, followed)
    app.extensions["mkiso.pickup"] = Pickup(installation, live)
    app.extensions["mkiso.recent"] = Shared(desk.recent_jobs)
    app.extensions["mkiso.relays"] = Shared(relays.overview)
    app.config.update(MAX_CONTENT_LENGTH=LARGEST_BODY, MAX_FORM_MEMORY_SIZE=LARGEST_BODY, MAX_FORM_PARTS=MOST_FIELDS)
    app.config["SEND_FILE_MAX_AGE_DEFAULT"] = KEPT
    for guard in guards.BEFORE_EACH_REQUEST:
        app.before_request(guard)
    for room in (orders, api, desk, history, pages, languages, relays):
        app.register_blueprint(room.blueprint)
    answers.register(app)
    app.wsgi_app = Polls(app.wsgi_app, followed, config.server)  # type: ignore[method-assign]
    return app
