-- The part of the gateway that HAProxy's own rules cannot express: the engine for a model, the list of models, and the
-- tokens of an answer. engines.lua, loaded before, has the names of models and engines.

local TAIL = 2048
local HEAD = 1024

-- Whether the key's list of engines, `*` or `,one,other,`, names this one.
local function allowed(list, engine)
  return list == "*" or list:find("," .. engine .. ",", 1, true) ~= nil
end

local function up(fetches, engine)
  return fetches:nbsrv("engine_" .. engine) > 0
end

-- The engines of a name that the key may use; of these, the ones that answer if any does.
local function candidates(fetches, name, list)
  local known, answering = {}, {}
  for _, one in ipairs(name.engines) do
    if allowed(list, one.engine) then
      known[#known + 1] = one
      if up(fetches, one.engine) then answering[#answering + 1] = one end
    end
  end
  return #answering > 0 and answering or known
end

local function drawn(fetches, engines)
  local sum = 0
  for _, one in ipairs(engines) do sum = sum + one.weight end
  local left = fetches:rand(sum)
  for _, one in ipairs(engines) do
    left = left - one.weight
    if left < 0 then return one.engine end
  end
end

-- Chooses the backend of a request: by txn.engine, from its path, or by txn.model, from its body. Sets txn.refused to
-- `model` or `engine` where the key may not use it, or nobody serves it.
core.register_action("route", {"http-req"}, function(txn)
  local list = txn:get_var("txn.engines")
  local engine = txn:get_var("txn.engine")
  if engine then
    if not allowed(list, engine) then return txn:set_var("txn.refused", "engine") end
  else
    local name = Names[txn:get_var("txn.model")]
    local engines = name and candidates(txn.f, name, list) or {}
    if #engines == 0 then return txn:set_var("txn.refused", "model") end
    if name.split then
      engine = drawn(txn.f, engines)
      txn:set_var("txn.variant", engine)
    else
      engine = engines[1].engine
    end
    txn:set_var("txn.engine", engine)
  end
  local fallback = Engines[engine].fallback
  local joint = fallback and allowed(list, fallback)
  txn:set_var("txn.backend", (joint and "fallback_" or "engine_") .. engine)
end)

-- Names are letters, digits, dots and dashes: they need no escaping.
local function listed(name)
  return '{"id":"' .. name .. '","object":"model","created":0,"owned_by":"rig"}'
end

-- Answers with the models that this key may use now: all of them, those of one engine, or one by its name.
core.register_service("models", "http", function(applet)
  local list = applet:get_var("txn.engines")
  local only = applet:get_var("txn.engine")
  local one = applet:get_var("txn.named")
  local found = {}
  for _, key in ipairs(Order) do
    for _, each in ipairs(Names[key].engines) do
      if (not only or each.engine == only) and (not one or key == one)
        and allowed(list, each.engine) and up(applet.f, each.engine) then
        found[#found + 1] = listed(key)
        break
      end
    end
  end
  local status, body = 200, '{"object":"list","data":[' .. table.concat(found, ",") .. "]}"
  if one and #found == 0 then
    status = 404
    body = '{"error":{"message":"no engine serves this model to this key now; GET /v1/models lists those that are",'
      .. '"type":"invalid_request_error","param":"model","code":"model_not_found"}}'
  elseif one then
    body = found[1]
  end
  applet:set_status(status)
  applet:add_header("content-type", "application/json")
  applet:add_header("content-length", tostring(#body))
  applet:start_response()
  applet:send(body)
end)

-- Reads an answer's model and its tokens from its first and last bytes. Quotes inside texts are escaped there, so that a
-- text that speaks of tokens cannot be taken for them.
local Usage = {id = "usage", flags = filter.FLT_CFG_FL_HTX}
Usage.__index = Usage

function Usage:new()
  return setmetatable({head = "", tail = ""}, Usage)
end

function Usage:start_analyze(txn, channel)
  if channel:is_resp() then filter.register_data_filter(self, channel) end
end

function Usage:http_payload(txn, message)
  local data = message:body()
  if not data then return end
  if #self.head < HEAD then self.head = (self.head .. data):sub(1, HEAD) end
  self.tail = (self.tail .. data):sub(-TAIL)
end

local function number(text, key)
  return tonumber(text:match('.*"' .. key .. '"%s*:%s*(%d+)'))
end

function Usage:http_end(txn, message)
  if not message.channel:is_resp() then return end
  local prompt, completion = number(self.tail, "prompt_tokens"), number(self.tail, "completion_tokens")
  -- OpenAI's Responses API has other names.
  prompt, completion = prompt or number(self.tail, "input_tokens"), completion or number(self.tail, "output_tokens")
  if not (prompt or completion) then
    -- The last event of llama.cpp has its own figures where the client did not ask for usage; cached tokens are apart.
    local read = number(self.tail, "prompt_n")
    prompt, completion = read and read + (number(self.tail, "cache_n") or 0), number(self.tail, "predicted_n")
  end
  local model = '"model"%s*:%s*("[%w%._:/-]+")'
  local served = self.head:match(model) or self.tail:match(model)
  if served then txn:set_var("txn.log.served", served) end
  if prompt then txn:set_var("txn.log.prompt_tokens", prompt) end
  if completion then txn:set_var("txn.log.completion_tokens", completion) end
  txn:set_var("txn.log.tokens", (prompt or completion) and '"counted"' or '"not reported"')
end

core.register_filter("usage", Usage, function(instance, arguments) return instance end)
