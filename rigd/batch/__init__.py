"""The batch server: OpenAI's Files and Batch interface for this machine's engines. Nothing is lost and nothing doubled.

The command rig-batch and the settings use the standard library and requests; the server has libraries of its own, in
requirements.txt beside this file.
"""
