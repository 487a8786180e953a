"""Small asyncio tools that know nothing of Docker: threads, calls that share one run, and programs."""
