// An archive on dcmjs-dimse: C-ECHO, C-FIND and C-MOVE of the files that it is given (PS3.4 C.4.1, C.4.2).
// node archive.js PORT DESTINATION=PORT FILE ...
'use strict';

const { Client, Dataset, Scp, Server, constants, requests, responses } = require('dcmjs-dimse');

const { PresentationContextResult, SopClass, Status } = constants;
const AE_TITLE = 'DCMJS';
const SERVED = new Set([
  SopClass.Verification,
  SopClass.StudyRootQueryRetrieveInformationModelFind,
  SopClass.StudyRootQueryRetrieveInformationModelMove,
]);
const LEVELS = { STUDY: 'StudyInstanceUID', SERIES: 'SeriesInstanceUID', IMAGE: 'SOPInstanceUID' };
const MATCHED = ['AccessionNumber', 'PatientID', ...Object.values(LEVELS)];

const [port, destination, ...files] = process.argv.slice(2);
const [destinationTitle, destinationPort] = destination.split('=');
const held = files.map((file) => ({ file, header: Dataset.fromFile(file).getElements() }));

/** What the query asks for: an empty key matches all. */
function matching(query) {
  return held.filter(({ header }) => MATCHED.every((key) => !query[key] || [query[key]].flat().includes(header[key])));
}

/** The first instance of each study, series or instance that matches, with the keys that were asked for. */
function found(query) {
  const groups = new Map(matching(query).map(({ header }) => [header[LEVELS[query.QueryRetrieveLevel]], header]));
  return [...groups.values()].map((header) => {
    const asked = Object.keys(query).filter((key) => !key.startsWith('_'));
    const answer = Object.fromEntries(asked.map((key) => [key, header[key] ?? '']));
    return new Dataset({ ...answer, QueryRetrieveLevel: query.QueryRetrieveLevel });
  });
}

class Archive extends Scp {
  associationRequested(association) {
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      if (SERVED.has(context.getAbstractSyntaxUid())) {
        context.setResult(PresentationContextResult.Accept, context.getTransferSyntaxUids()[0]);
      } else {
        context.setResult(PresentationContextResult.RejectAbstractSyntaxNotSupported);
      }
    }
    this.sendAssociationAccept();
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }

  cEchoRequest(request, callback) {
    const response = responses.CEchoResponse.fromRequest(request);
    response.setStatus(Status.Success);
    callback(response);
  }

  cFindRequest(request, callback) {
    const answers = found(request.getDataset().getElements()).map((answer) => {
      const pending = responses.CFindResponse.fromRequest(request);
      pending.setDataset(answer);
      pending.setStatus(Status.Pending);
      return pending;
    });
    const last = responses.CFindResponse.fromRequest(request);
    last.setStatus(Status.Success);
    callback([...answers, last]);
  }

  cMoveRequest(request, callback) {
    const last = responses.CMoveResponse.fromRequest(request);
    const instances = matching(request.getDataset().getElements());
    const client = new Client();
    let completed = 0;
    for (const { file } of instances) {
      const store = new requests.CStoreRequest(file);
      store.on('response', (response) => (completed += response.getStatus() === Status.Success ? 1 : 0));
      client.addRequest(store);
    }
    client.on('closed', () => {
      last.setRemaining(0);
      last.setCompleted(completed);
      last.setWarnings(0);
      last.setFailures(instances.length - completed);
      last.setStatus(completed === instances.length ? Status.Success : 0xb000);
      callback([last]);
    });
    client.send('127.0.0.1', Number(destinationPort), AE_TITLE, destinationTitle);
  }
}

const server = new Server(Archive);
server.on('networkError', (problem) => console.error(problem));
server.listen(Number(port));
