"""Sign in and out, password, preferences."""

from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from labelhub.accounts import views

app_name = "accounts"
urlpatterns = [
    path("login/", views.SignIn.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("password/", views.password, name="password"),
    path("preferences/", views.preferences, name="preferences"),
]
