"""The web: one Flask application on top of the jobs."""

from __future__ import annotations

from flask import Flask

from mkiso.config import Config
from mkiso.installation import Installation
from mkiso.web import access, answers, api, health, legacy
from mkiso.web.live import LiveJobs


def create_app(config: Config) -> Flask:
    """The WSGI application. Raises ConfigurationError where the ledger can never be opened."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    installation = Installation(config)
    app.extensions["mkiso"] = (installation, LiveJobs())
    app.before_request(access.require_token)
    for blueprint in (legacy.blueprint, api.blueprint, health.blueprint):
        app.register_blueprint(blueprint)
    answers.register(app)
    return app
