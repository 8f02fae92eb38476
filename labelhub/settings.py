"""One settings file. What differs between machines comes from the environment, checked at start.

Without any variable: SQLite and an embedded Valkey under var/, on this machine alone.
"""

from __future__ import annotations

import os
from pathlib import Path

from csp.constants import NONCE, NONE, SELF
from django.utils.translation import gettext_lazy as _

from labelhub.lib.env import (
    accelerate_config,
    database_from_url,
    env_bool,
    env_int,
    env_list,
    env_secret,
)
from labelhub.lib.services import embedded_broker_url

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("LABELHUB_VAR") or BASE_DIR / "var").resolve()
MODELS_DIR = Path(os.environ.get("LABELHUB_MODELS") or VAR / "models").resolve()
RUNS_DIR = VAR / "runs"
# Training in several processes: a file of `accelerate config`, or the name of one that comes along.
ACCELERATE_CONFIG = accelerate_config(
    os.environ.get("LABELHUB_ACCELERATE_CONFIG", ""), BASE_DIR / "trainer" / "accelerate_configs"
)

# --- security
SECRET_KEY = env_secret("LABELHUB_SECRET_KEY", VAR / "secret_key")
DEBUG = env_bool("LABELHUB_DEBUG", False)
ALLOWED_HOSTS = env_list("LABELHUB_ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]"])
# Behind a TLS proxy: cookies only over https, redirects and HSTS on.
HTTPS = env_bool("LABELHUB_HTTPS", False)
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14
CSRF_TRUSTED_ORIGINS = env_list("LABELHUB_TRUSTED_ORIGINS", [])
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF],
        "img-src": [SELF],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
    }
}

# --- the rooms
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "csp",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "labelhub.lib",
    "labelhub.accounts",
    "labelhub.projects",
    "labelhub.registry",
    "labelhub.prompts",
    "labelhub.assignments",
    "labelhub.rankings",
    "labelhub.runs",
    "labelhub.rounds",
    "labelhub.annotate",
    "labelhub.dashboard",
    "labelhub.api",
    "labelhub.autopilot",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "labelhub.accounts.middleware.OwnPasswordFirst",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "labelhub.urls"
ASGI_APPLICATION = "labelhub.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
            ],
        },
    }
]

# --- data
DATABASES = {"default": database_from_url(os.environ.get("DATABASE_URL", ""), VAR / "db.sqlite3")}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SILENCED_SYSTEM_CHECKS: list[str] = []

# --- people
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "accounts:login"
# Ten wrong passwords for one name from one address close that pair for a quarter of an hour.
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "accounts/locked.html"
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False

# --- language and time
LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("简体中文"))]
LOCALE_PATHS = [BASE_DIR / "labelhub" / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = os.environ.get("LABELHUB_TIME_ZONE", "UTC")

# --- files for the browser
STATIC_URL = "/static/"
STATIC_ROOT = VAR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "labelhub.lib.staticfinder.VendorFinder",
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# --- queue
REDIS_URL = os.environ.get("REDIS_URL") or ""
CELERY_BROKER_URL = REDIS_URL or embedded_broker_url(VAR)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "cpu"
# What trains waits in a queue of its own, which the machines with accelerators read.
CELERY_TASK_ROUTES = {"labelhub.runs.tasks.watch_run": {"queue": "gpu"}}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# A run's task may be delivered twice: the run's lease makes the second one return at once.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,
    "socket_timeout": 30,
    "socket_connect_timeout": 3,
    "retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_max": 0.5},
}
CELERY_TASK_PUBLISH_RETRY_POLICY = {
    "max_retries": 1,
    "interval_start": 0.1,
    "interval_max": 0.2,
}
CELERY_BEAT_SCHEDULE = {
    "sweep-runs": {"task": "labelhub.runs.tasks.sweep_runs", "schedule": 10.0},
    "sweep-rounds": {"task": "labelhub.rounds.tasks.sweep_rounds", "schedule": 5.0},
    # Sets grow more urgent by the day: a few minutes are often enough.
    "sweep-priorities": {
        "task": "labelhub.assignments.tasks.sweep_priorities",
        "schedule": 300.0,
    },
    # Figures about rankings: of projects of which enough has changed.
    "sweep-quality": {"task": "labelhub.rankings.tasks.sweep_quality", "schedule": 300.0},
}

# --- API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "labelhub.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "labelhub.api.pagination.Pages",
    "PAGE_SIZE": 50,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "LabelHub API",
    "VERSION": "1",
    "DESCRIPTION": "Prompts, rankings, snapshots, runs and model versions for programs.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "RunState": "labelhub.runs.models.Run.State",
        "RoundState": "labelhub.rounds.models.Round.State",
        "ComparisonState": "labelhub.rounds.models.Comparison.State",
        "SnapshotKind": "labelhub.runs.models.Snapshot.Kind",
        "VersionKind": "labelhub.registry.models.ModelVersion.Kind",
    },
}

# --- the loop
LEASE_MINUTES = env_int("LABELHUB_LEASE_MINUTES", 15)
# A run whose watcher did not renew for this long is taken over by the next delivery.
RUN_LEASE_SECONDS = env_int("LABELHUB_RUN_LEASE_SECONDS", 30)

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        "axes": {"level": "WARNING"},
        # The sweeps run every few seconds: their successes would fill the disk with nothing.
        "celery.beat": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
