"""Go's text/template, as far as the docker CLI's users meet it. Pure."""
