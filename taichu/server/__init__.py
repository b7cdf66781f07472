"""An exported model over HTTP, in the form of OpenAI's API; `app.py` puts it together."""
