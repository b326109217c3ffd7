"""The gateway before the engines: HAProxy's configuration and its Lua files, as plain functions of the settings."""
